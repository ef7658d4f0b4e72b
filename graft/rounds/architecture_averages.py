"""FedAvg in the cloud half: initial domains of one architecture train one average model.

It runs after round 0, and only where a configured method needs an average.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Protocol

from graft.core.config import ExpansionConfig
from graft.core.exchange import Failure, TrainRequest, TrainResult
from graft.core.ports import Edge
from graft.core.records import ModelCard
from graft.errors import EdgeError
from graft.methods import find_method
from graft.methods.federated import FEDAVG_LOCAL
from graft.rounds.admissible import digest_failure
from graft.rounds.server import Admission, Round, own_card, train_results

Members = Sequence[tuple[ModelCard, int]]
_MOST_OF_MEDIAN = 100


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
    profiled = {profile.domain_id: profile.num_samples for profile in trained.profiles}
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
                    card, count = _member(report, members[domain_id], admit)
                    member = card, max(1, min(count, profiled[domain_id]))
                    pushed[members[domain_id]].append(member)
                except Exception as error:
                    report = digest_failure(request, error)
            before = last.get(domain_id)
            if isinstance(report, TrainResult) and isinstance(before, TrainResult):
                # A domain has one row of results, with the time of all its rounds.
                report = replace(report, compute_s=before.compute_s + report.compute_s)
            last[domain_id] = report
        averages |= {name: averaging.average(name, _capped(each)) for name, each in pushed.items()}
        members = {d: name for d, name in members.items() if isinstance(last[d], TrainResult)}
    averages_by_name = tuple(averages[name] for name in sorted(averages))
    return replace(
        trained,
        state=replace(trained.state, architecture_averages=averages_by_name),
        reports=(*trained.reports, *last.values()),
    )


def _capped(members: Members) -> Members:
    """The members, none with more than ``_MOST_OF_MEDIAN`` times the median number of samples: one
    false count must not decide the average."""
    most = int(_MOST_OF_MEDIAN * median(count for _, count in members))
    return [(card, min(count, most)) for card, count in members]


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
