"""FedAvg in the cloud half: initial domains of one architecture train one model together.

It runs after round 0, and only where a configured method starts from a group's model.
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
from graft.methods.fedavg import FEDAVG_LOCAL
from graft.rounds.server import Admission, Round, own_card, train_results

Members = Sequence[tuple[ModelCard, int]]


class Averaging(Protocol):
    """What the server does for a group; both give the admitted card of a model in its store."""

    def begin(self, architecture: str) -> ModelCard:
        """The common start of a group's members."""
        ...

    def average(self, architecture: str, members: Members) -> ModelCard:
        """The mean of what the members pushed, weighted by their numbers of samples (1 or more)."""
        ...


def average_by_architecture(
    trained: Round, edge: Edge, admit: Admission, averaging: Averaging, config: ExpansionConfig
) -> Round:
    """Round 0 with the groups' models in its state.

    An initial domain that fails in one of the ``training.fedavg_rounds`` is a failure of the round
    and is asked no more. Unchanged where no configured method wants a group's model.
    """
    if not any(find_method(name).needs_average for name in config.methods):
        return trained
    members = {card.domain_id: card.architecture for card in trained.state.catalogue}
    starts = {name: averaging.begin(name) for name in sorted(set(members.values()))}
    averages: dict[str, ModelCard] = {}
    told: dict[str, TrainResult | Failure] = {}
    for _ in range(config.training.fedavg_rounds):
        requests = [
            _local_request(domain_id, (starts | averages)[architecture])
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
            told[domain_id] = _after(told.get(domain_id), report)
        averages |= {name: averaging.average(name, each) for name, each in pushed.items()}
        members = {d: name for d, name in members.items() if isinstance(told[d], TrainResult)}
    averages_by_name = tuple(averages[name] for name in sorted(averages))
    return replace(
        trained,
        state=replace(trained.state, architecture_averages=averages_by_name),
        reports=(*trained.reports, *told.values()),
    )


def _local_request(domain_id: str, group: ModelCard) -> TrainRequest:
    return TrainRequest(
        domain_id=domain_id,
        round_index=0,
        method=FEDAVG_LOCAL,
        sources=(),
        register=True,
        architecture_averages=(group.for_fusion(),),
    )


def _member(report: TrainResult, architecture: str, admit: Admission) -> tuple[ModelCard, int]:
    """The admitted card and the number of samples behind it; raises GraftError for neither."""
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


def _after(
    before: TrainResult | Failure | None, report: TrainResult | Failure
) -> TrainResult | Failure:
    """An source's one row for all its rounds: the last report, with the time of them all."""
    if isinstance(report, TrainResult) and isinstance(before, TrainResult):
        return replace(report, compute_s=before.compute_s + report.compute_s)
    return report
