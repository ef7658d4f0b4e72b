"""The cloud half of a round: profiles in, a selection each, orders out, models admitted.

State in, state out; nothing here opens a socket, a file or a clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graft.config import ExpansionConfig
from graft.errors import EdgeError, GraftError
from graft.methods import FOUNDER, Method, find_method
from graft.ports import Edge
from graft.selection import Ranked, rank_catalogue
from graft.values import (
    Answer,
    Demotion,
    DomainProfile,
    Failure,
    LearnOrder,
    LearnReport,
    ModelCard,
    Order,
    ProbeOrder,
    ProfileOrder,
    Selection,
    SystemState,
    failure_of,
)

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
    near = _rank(profiles, methods, state, config)
    probes = [
        ProbeOrder(
            domain_id=domain_id,
            round_index=index,
            method=method.name,
            candidates=tuple(card.for_probe() for card, _ in near[method.name][domain_id]),
            coarse_distances=tuple(distance for _, distance in near[method.name][domain_id]),
        )
        for method in methods
        if method.reach == "selected"
        for domain_id in profiles
    ]
    chosen: dict[tuple[str, str], tuple[str, ...]] = {}
    demotions: list[Demotion] = []
    for order, answer in zip(probes, edge.ask(probes), strict=True):
        if isinstance(answer, Selection):
            try:
                chosen[order.domain_id, order.method] = _offered(answer, order)
                demotions += answer.demoted
            except EdgeError as error:
                failures.append(failure_of(order, error))
        else:
            failures.append(_as_failure(answer, order))
    failed = {(failure.domain_id, failure.method) for failure in failures}
    everyone = tuple(card.for_fusion() for card in state.catalogue)
    groups = tuple(card.for_fusion() for card in state.groups)

    def sources(method: Method, domain_id: str) -> tuple[ModelCard, ...]:
        if method.reach == "none":
            return ()
        if method.reach == "centroids":
            return tuple(card.for_probe() for card, _ in near[method.name][domain_id])
        visible = _visible(method, everyone)
        if method.reach == "selected":
            by_id = {card.model_id: card for card in visible}
            return tuple(by_id[model_id] for model_id in chosen[domain_id, method.name])
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
    demotions += [
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
            failure = _as_failure(answer, order)
            failures += [replace(failure, method=method) for method in methods]
    return profiles, failures


def _rank(
    profiles: dict[str, DomainProfile],
    methods: Sequence[Method],
    state: SystemState,
    config: ExpansionConfig,
) -> dict[str, dict[str, Ranked]]:
    """By method and newcomer, the cards that stage one ranks nearest; each catalogue once."""
    ranked: dict[bool, dict[str, Ranked]] = {}
    for method in methods:
        if method.reach in ("selected", "centroids") and method.founders_only not in ranked:
            cards = _visible(method, state.catalogue)
            nearest = _rank_sound(list(profiles.values()), cards, state, config)
            ranked[method.founders_only] = dict(zip(profiles, nearest, strict=True))
    return {method.name: ranked.get(method.founders_only, {}) for method in methods}


def _rank_sound(
    profiles: Sequence[DomainProfile],
    cards: Sequence[ModelCard],
    state: SystemState,
    config: ExpansionConfig,
) -> list[Ranked]:
    """Stage one's ranking with those behind all others that several newcomers demoted."""
    suspects = state.suspects(config.trust.demoted_by)
    sound = [card for card in cards if card.domain_id not in suspects]
    nearest = rank_catalogue(profiles, sound, config.selection)
    if len(sound) < min(len(cards), config.selection.candidates_wanted + 1):
        last = [card for card in cards if card.domain_id in suspects]
        behind = rank_catalogue(profiles, last, config.selection)
        wanted = config.selection.candidates_wanted
        nearest = [(a + b)[:wanted] for a, b in zip(nearest, behind, strict=True)]
    return nearest


def _visible(method: Method, cards: tuple[ModelCard, ...]) -> tuple[ModelCard, ...]:
    if method.founders_only:
        return tuple(card for card in cards if card.round_index == 0)
    return cards


def _offered(selection: Selection, order: ProbeOrder) -> tuple[str, ...]:
    offered = {card.model_id for card in order.candidates}
    foreign = sorted(set(selection.chosen) - offered)
    if foreign:
        raise EdgeError(f"selection of {order.domain_id}: got {foreign[0]}, never offered")
    owners = {card.model_id: card.domain_id for card in order.candidates}
    for demotion in selection.demoted:
        if owners.get(demotion.model_id) != demotion.domain_id:
            raise EdgeError(
                f"selection of {order.domain_id}: demotes {demotion.model_id} of "
                f"{demotion.domain_id}, never offered"
            )
    return selection.chosen


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
            reports.append(_as_failure(answer, order))
        elif missing := [name for name in _METRICS if name not in answer.metrics]:
            error = EdgeError(f"report of {order.domain_id}: got no {', '.join(missing)}")
            reports.append(failure_of(order, error))
        else:
            reports.append(answer)
    return reports


def _as_failure(answer: Answer, order: Order) -> Failure:
    """The failure that an answer is: told, or being of another kind than was asked for."""
    if isinstance(answer, Failure):
        return answer
    kind = type(answer).__name__
    return failure_of(
        order, EdgeError(f"answer of {order.domain_id}: got a {kind}, wanted what was asked for")
    )
