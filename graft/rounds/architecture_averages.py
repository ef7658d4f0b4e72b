"""FedAvg in the cloud half: initial domains of one architecture train one average model.

It runs after round 0, and only where a configured method needs an average.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from graft.core.config import ExpansionConfig
from graft.core.ports import Edge
from graft.core.records import Failure, ModelCard, TrainRequest, TrainResult, failure_of
from graft.errors import EdgeError, GraftError
from graft.methods import find_method
from graft.methods.federated import FEDAVG_LOCAL
from graft.rounds.server import Admission, Round, own_card, train_results

Members = Sequence[tuple[ModelCard, int]]


class Averaging(Protocol):
    """The server's averaging; both functions give the admitted card of a model in its store."""

    def begin(self, architecture: str) -> ModelCard:
        """The common start of an architecture's members."""

    def average(self, architecture: str, members: Members) -> ModelCard:
        """The mean of what the members pushed, weighted by their numbers of samples (1 or more)."""


def average_by_architecture(
    trained: Round, edge: Edge, admit: Admission, averaging: Averaging, config: ExpansionConfig
) -> Round:
    """Round 0, as ``train_initial_domains`` gave it, with an average model of each architecture.

    An initial domain that fails in one of the ``training.fedavg_rounds`` is a failure of the round
    and is asked no more. Unchanged where no configured method needs an average.
    """
    if not any(find_method(name).needs_average for name in config.methods):
        return trained
    members = {card.domain_id: card.architecture for card in trained.state.catalogue}
    starts = {name: averaging.begin(name) for name in sorted(set(members.values()))}
    averages: dict[str, ModelCard] = {}
    last: dict[str, TrainResult | Failure] = {}
    for _ in range(config.training.fedavg_rounds):
        requests = [
            TrainRequest(
                domain_id=domain_id,
                round_index=0,
                method=FEDAVG_LOCAL,
                sources=(),
                register=True,
                architecture_averages=((starts | averages)[architecture].for_fusion(),),
            )
            for domain_id, architecture in members.items()
        ]
        pushed: dict[str, list[tuple[ModelCard, int]]] = defaultdict(list)
        for request, report in zip(requests, train_results(requests, edge), strict=True):
            domain_id = request.domain_id
            if isinstance(report, TrainResult):
                try:
                    member = _member(report, members[domain_id], admit)
                    pushed[members[domain_id]].append(member)
                except GraftError as error:
                    report = failure_of(request, error)
            before = last.get(domain_id)
            if isinstance(report, TrainResult) and isinstance(before, TrainResult):
                # A domain has one row of results, with the time of all its rounds.
                report = replace(report, compute_s=before.compute_s + report.compute_s)
            last[domain_id] = report
        averages |= {name: averaging.average(name, each) for name, each in pushed.items()}
        members = {d: name for d, name in members.items() if isinstance(last[d], TrainResult)}
    averages_by_name = tuple(averages[name] for name in sorted(averages))
    return replace(
        trained,
        state=replace(trained.state, architecture_averages=averages_by_name),
        reports=(*trained.reports, *last.values()),
    )


def _member(report: TrainResult, architecture: str, admit: Admission) -> tuple[ModelCard, int]:
    """The admitted card and its number of samples; raises GraftError for a bad one."""
    card = own_card(report)
    if card.architecture != architecture:
        raise EdgeError(
            f"report of {report.domain_id}: got a {card.architecture}, wanted {architecture}"
        )
    num_samples = int(report.metrics["num_labelled"])
    if num_samples < 1:
        raise EdgeError(
            f"report of {report.domain_id}: got {num_samples} samples, wanted 1 or more"
        )
    return admit(card), num_samples
