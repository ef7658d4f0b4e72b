"""The cloud half of task growth: domains of the system come back, and their models grow."""

from collections.abc import Sequence
from dataclasses import replace

from graft.core.config import ExpansionConfig
from graft.core.exchange import Failure, GrowRequest, Growth, TrainResult
from graft.core.ports import Edge
from graft.core.records import ModelCard, SystemState
from graft.core.results import GROW
from graft.errors import EdgeError, ModelMissingError
from graft.rounds.admissible import digest_failure
from graft.rounds.server import Admission, Round, ask_profiles, own_card, train_results


def grow_domains(
    state: SystemState,
    growths: Sequence[Growth],
    edge: Edge,
    admit: Admission,
    config: ExpansionConfig,
) -> Round:
    """Every domain grows its latest model by every one of ``config.growth.methods``.

    What the main one of them gives joins the catalogue, with the model that grew as its parent;
    the former model stays there and is offered no more (``SystemState.latest``). The round's
    state is ``state`` one round later; a domain that failed is among its failures.
    """
    index, methods = state.round_index, [GROW + way for way in config.growth.methods]
    wanted = {growth.domain_id: growth for growth in growths}
    own = {card.domain_id: card for card in state.latest.of_domains(wanted)}
    profiles, failures = ask_profiles([d for d in wanted if d in own], index, methods, edge)
    failures += [
        Failure(
            domain_id=domain_id,
            round_index=index,
            method=method,
            error=ModelMissingError.__name__,
            message=f"domain {domain_id}: has no model in the system, wanted one to grow",
        )
        for domain_id in sorted(wanted.keys() - own.keys())
        for method in methods
    ]
    requests = [
        GrowRequest(
            domain_id=domain_id,
            round_index=index,
            method=method,
            model=own[domain_id].for_fusion(),
            register=method == methods[0],
            classes=wanted[domain_id].classes,
        )
        for method in methods
        for domain_id in profiles
    ]
    cards: list[ModelCard] = []
    reports: list[TrainResult | Failure] = []
    for request, report in zip(requests, train_results(requests, edge), strict=True):
        if isinstance(report, TrainResult) and request.register:
            try:
                card = _grown_card(report, request)
                cards.append(admit(replace(card, profile=profiles[report.domain_id])))
            except Exception as error:
                report = digest_failure(request, error)
        reports.append(report)
    return Round(
        state=state.admit(tuple(cards)),
        reports=(*failures, *reports),
        profiles=tuple(profiles.values()),
    )


def beside(grown: Round, expanded: Round) -> Round:
    """The round in which both happened, from one state."""
    index = expanded.state.round_index
    cards = grown.state.catalogue.where(grown.state.catalogue.round_indices == index - 1)
    return replace(
        expanded,
        state=replace(expanded.state, catalogue=expanded.state.catalogue + cards),
        reports=grown.reports + expanded.reports,
        profiles=grown.profiles + expanded.profiles,
    )


def _grown_card(report: TrainResult, request: GrowRequest) -> ModelCard:
    """The card of a grown model; raises EdgeError for one of another lineage, or that knows less
    than before."""
    card, model, what = own_card(report), request.model, f"report of {report.domain_id}"
    if card.parents != (model.model_id,) or card.architecture != model.architecture:
        raise EdgeError(f"{what}: got a model of another lineage, wanted a child of its own")
    if (model.class_mask_C & ~card.class_mask_C).any():
        raise EdgeError(f"{what}: got a model that knows less than before")
    return card
