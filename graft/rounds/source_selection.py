"""Whom newcomers learn from: stage one's ranking, their own probes, and others for the demoted."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from graft.core.config import ExpansionConfig
from graft.core.ports import Edge
from graft.core.records import (
    Answer,
    Demotion,
    DomainProfile,
    Failure,
    ModelCard,
    Order,
    ProbeOrder,
    Selection,
    SystemState,
    failure_of,
)
from graft.errors import EdgeError
from graft.methods import Method
from graft.selection import Ranked, rank_catalogue

Place = tuple[str, str]  # domain, method
Near = dict[str, dict[str, Ranked]]  # by method and newcomer
# A device that demotes is asked once more. What it demotes then is not replaced: whoever could
# fill the catalogue with liars would keep it probing.
_PROBES = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """The models chosen, by domain and method, what newcomers demoted, and who failed."""

    chosen: dict[Place, tuple[str, ...]] = field(default_factory=dict)
    demotions: list[Demotion] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def rank_candidates(
    profiles: Mapping[str, DomainProfile],
    methods: Sequence[Method],
    state: SystemState,
    config: ExpansionConfig,
) -> Near:
    """By method and newcomer, the cards that stage one ranks nearest; each catalogue once."""
    ranked: dict[bool, dict[str, Ranked]] = {}
    for method in methods:
        if method.reach in ("selected", "centroids") and method.founders_only not in ranked:
            cards = visible_cards(method, state.catalogue)
            nearest = _rank_sound(list(profiles.values()), cards, state, config)
            ranked[method.founders_only] = dict(zip(profiles, nearest, strict=True))
    return {method.name: ranked.get(method.founders_only, {}) for method in methods}


def choose_sources(
    near: Near,
    profiles: Mapping[str, DomainProfile],
    methods: Sequence[Method],
    state: SystemState,
    config: ExpansionConfig,
    edge: Edge,
) -> Choice:
    """Every newcomer probes its nearest candidates for every method that selects.

    Who demoted any probes again: those that stood, which it holds already, and the next nearest
    in place of the others, so that a liar takes no honest source's place. The later selection
    counts; without demotions nothing is asked twice.
    """
    choice, index = Choice(), state.round_index
    selecting = [method for method in methods if method.reach == "selected"]
    orders = [
        _probe_order(domain_id, method.name, index, near[method.name][domain_id])
        for method in selecting
        for domain_id in profiles
    ]
    fallen: dict[Place, set[str]] = defaultdict(set)
    for left in reversed(range(_PROBES)):
        probed: dict[Place, ProbeOrder] = {}
        for order, selection in _ask(orders, edge, choice.failures):
            place = order.domain_id, order.method
            choice.chosen[place] = selection.chosen
            choice.demotions.extend(selection.demoted)
            fallen[place] |= {demotion.model_id for demotion in selection.demoted}
            if selection.demoted:
                probed[place] = order
        if not probed or not left:
            break
        who = {domain_id: profiles[domain_id] for domain_id, _ in probed}
        wanted = config.selection.candidates_wanted
        most = wanted + max(len(fallen[place]) for place in probed)
        wider = replace(config, selection=replace(config.selection, num_candidates=most))
        further = rank_candidates(who, selecting, state, wider)
        orders = []
        for (domain_id, method), order in probed.items():
            stood = [
                pair
                for pair in further[method][domain_id]
                if pair[0].model_id not in fallen[domain_id, method]
            ]
            known = {card.model_id for card in order.candidates}
            if any(card.model_id not in known for card, _ in stood[:wanted]):
                orders.append(_probe_order(domain_id, method, index, stood[:wanted]))
    return choice


def visible_cards(method: Method, cards: tuple[ModelCard, ...]) -> tuple[ModelCard, ...]:
    """The cards that a method may be offered."""
    if method.founders_only:
        return tuple(card for card in cards if card.round_index == 0)
    return cards


def as_failure(answer: Answer, order: Order) -> Failure:
    """The failure that an answer is: told, or being of another kind than was asked for."""
    if isinstance(answer, Failure):
        return answer
    kind = type(answer).__name__
    return failure_of(
        order, EdgeError(f"answer of {order.domain_id}: got a {kind}, wanted what was asked for")
    )


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


def _probe_order(domain_id: str, method: str, index: int, near: Ranked) -> ProbeOrder:
    return ProbeOrder(
        domain_id=domain_id,
        round_index=index,
        method=method,
        candidates=tuple(card.for_probe() for card, _ in near),
        coarse_distances=tuple(distance for _, distance in near),
    )


def _ask(
    orders: Sequence[ProbeOrder], edge: Edge, failures: list[Failure]
) -> list[tuple[ProbeOrder, Selection]]:
    """The orders that were answered by a selection of what they offered; others failed."""
    answered = []
    for order, answer in zip(orders, edge.ask(orders), strict=True):
        if not isinstance(answer, Selection):
            failures.append(as_failure(answer, order))
            continue
        try:
            _check_offered(answer, order)
        except EdgeError as error:
            failures.append(failure_of(order, error))
        else:
            answered.append((order, answer))
    return answered


def _check_offered(selection: Selection, order: ProbeOrder) -> None:
    """Raises EdgeError for what is chosen or demoted and was never offered."""
    owners = {card.model_id: card.domain_id for card in order.candidates}
    foreign = sorted(set(selection.chosen) - set(owners))
    if foreign:
        raise EdgeError(f"selection of {order.domain_id}: got {foreign[0]}, never offered")
    for demotion in selection.demoted:
        if owners.get(demotion.model_id) != demotion.domain_id:
            raise EdgeError(
                f"selection of {order.domain_id}: demotes {demotion.model_id} of "
                f"{demotion.domain_id}, never offered"
            )
