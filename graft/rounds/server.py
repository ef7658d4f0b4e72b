"""The cloud half of a round: profiles in, a selection each, orders out, models admitted.

State in, state out; nothing here opens a socket, a file or a clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graft.core.config import ExpansionConfig
from graft.core.ports import Edge
from graft.core.records import (
    DomainProfile,
    Failure,
    LearnOrder,
    LearnReport,
    ModelCard,
    ProfileOrder,
    SystemState,
    failure_of,
)
from graft.errors import EdgeError, GraftError
from graft.methods import FOUNDER, Method, find_method
from graft.rounds.source_selection import as_failure, choose_sources, rank_candidates, visible_cards

Admission = Callable[[ModelCard], ModelCard]
# What a report must tell for its row of the results.
_METRICS = ("accuracy", "macro_f1", "num_test", "num_labelled", "num_unlabelled")


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What one round leaves behind: the next state, every domain's report or failure, and the
    profiles of those that gave one."""

    state: SystemState
    reports: tuple[LearnReport | Failure, ...]
    profiles: tuple[DomainProfile, ...] = ()

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(report for report in self.reports if isinstance(report, Failure))


def found_system(domain_ids: Sequence[str], edge: Edge, admit: Admission) -> Round:
    """Round 0: every founder trains on its own labels and registers its model."""
    profiles, failures = _ask_profiles(domain_ids, 0, (FOUNDER,), edge)
    orders = [
        LearnOrder(domain_id=d, round_index=0, method=FOUNDER, sources=(), register=True)
        for d in profiles
    ]
    reports = [*failures, *learn_reports(orders, edge)]
    return _admit_reports(SystemState(), FOUNDER, reports, profiles, admit)


def expand_system(
    state: SystemState,
    newcomers: Sequence[str],
    edge: Edge,
    admit: Admission,
    config: ExpansionConfig,
) -> Round:
    """One round: newcomers are profiled, matched, taught and, by the main method, admitted."""
    index = state.round_index
    profiles, failures = _ask_profiles(newcomers, index, config.methods, edge)
    methods = [find_method(name) for name in config.methods]
    near = rank_candidates(profiles, methods, state, config)
    choice = choose_sources(near, profiles, methods, state, config, edge)
    failures += choice.failures
    failed = {(failure.domain_id, failure.method) for failure in failures}
    everyone = tuple(card.for_fusion() for card in state.catalogue)
    groups = tuple(card.for_fusion() for card in state.groups)

    def sources(method: Method, domain_id: str) -> tuple[ModelCard, ...]:
        if method.reach == "none":
            return ()
        if method.reach == "centroids":
            return tuple(card.for_probe() for card, _ in near[method.name][domain_id])
        visible = visible_cards(method, everyone)
        if method.reach == "selected":
            by_id = {card.model_id: card for card in visible}
            return tuple(by_id[model_id] for model_id in choice.chosen[domain_id, method.name])
        return visible

    orders = [
        LearnOrder(
            domain_id=domain_id,
            round_index=index,
            method=method.name,
            sources=sources(method, domain_id),
            register=method.name == config.method,
            groups=groups if method.group else (),
        )
        for method in methods
        for domain_id in profiles
        if (domain_id, method.name) not in failed
    ]
    reports = [*failures, *learn_reports(orders, edge)]
    named = {card.model_id: card.domain_id for card in state.catalogue}
    demotions = choice.demotions + [
        demotion
        for report in reports
        if isinstance(report, LearnReport)
        for demotion in report.demoted
        if named.get(demotion.model_id) == demotion.domain_id
    ]
    return _admit_reports(state.note(demotions), config.method, reports, profiles, admit)


def _ask_profiles(
    domain_ids: Sequence[str], index: int, methods: Sequence[str], edge: Edge
) -> tuple[dict[str, DomainProfile], list[Failure]]:
    """Profiles by domain; a domain that gives none fails in every method."""
    profiles: dict[str, DomainProfile] = {}
    failures: list[Failure] = []
    orders = [ProfileOrder(domain_id=d, round_index=index) for d in domain_ids]
    for order, answer in zip(orders, edge.ask(orders), strict=True):
        if isinstance(answer, DomainProfile):
            profiles[order.domain_id] = answer
        else:
            failure = as_failure(answer, order)
            failures += [replace(failure, method=method) for method in methods]
    return profiles, failures


def _admit_reports(
    state: SystemState,
    main: str,
    reports: Sequence[LearnReport | Failure],
    profiles: dict[str, DomainProfile],
    admit: Admission,
) -> Round:
    """Admit what the main method registered; a model that is refused is a failure."""
    cards: list[ModelCard] = []
    final: list[LearnReport | Failure] = []
    for report in reports:
        if isinstance(report, LearnReport) and report.method == main:
            try:
                card = own_card(report)
                cards.append(admit(replace(card, profile=profiles[report.domain_id])))
            except GraftError as error:
                report = failure_of(report, error)
        final.append(report)
    return Round(
        state=state.admit(tuple(cards)), reports=tuple(final), profiles=tuple(profiles.values())
    )


def own_card(report: LearnReport) -> ModelCard:
    """The card of what a domain registered; raises EdgeError for none, another domain's, or one
    of another round."""
    if report.card is None:
        raise EdgeError(f"report of {report.domain_id}: got no card, wanted one")
    if report.card.domain_id != report.domain_id:
        raise EdgeError(f"report of {report.domain_id}: got a card of {report.card.domain_id}")
    if report.card.round_index != report.round_index:
        raise EdgeError(
            f"report of {report.domain_id}: got a card of round {report.card.round_index}, "
            f"wanted {report.round_index}"
        )
    return report.card


def learn_reports(orders: Sequence[LearnOrder], edge: Edge) -> list[LearnReport | Failure]:
    """The answers to the orders, in their order; what cannot be a row of results has failed."""
    reports: list[LearnReport | Failure] = []
    for order, answer in zip(orders, edge.ask(orders), strict=True):
        if not isinstance(answer, LearnReport):
            reports.append(as_failure(answer, order))
        elif missing := [name for name in _METRICS if name not in answer.metrics]:
            error = EdgeError(f"report of {order.domain_id}: got no {', '.join(missing)}")
            reports.append(failure_of(order, error))
        else:
            reports.append(answer)
    return reports
