"""Which sources each target learns from: coarse ranking, the target's probe, and replacements."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from graft.core.catalogue import Catalogue
from graft.core.config import ExpansionConfig
from graft.core.exchange import Failure, ProbeRequest, Request, Response, Selection, failure_of
from graft.core.ports import Edge
from graft.core.records import (
    DomainProfile,
    IntArray,
    ModelCard,
    PeerFindings,
    RejectedSource,
    SystemState,
)
from graft.core.seeding import stream
from graft.errors import EdgeError
from graft.methods import Method
from graft.rounds.budget import Budgets
from graft.selection import RankedCards, rank_catalogue
from graft.selection.scores import RANDOM

TargetMethod = tuple[str, str]  # domain id, method
ModelKey = tuple[str, str]  # model id, domain id
CandidatesByMethod = dict[str, dict[str, RankedCards]]  # by method and target domain
# A device that rejects candidates probes once more; what it rejects then is not replaced. Without
# a bound, an attacker who fills the catalogue would keep devices probing.
_PROBES = 2


@dataclass(frozen=True, slots=True)
class SourceSelection:
    """The chosen model ids by domain and method, what target domains rejected, and failures."""

    chosen: dict[TargetMethod, tuple[str, ...]] = field(default_factory=dict)
    rejections: list[RejectedSource] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    tallies: dict[ModelKey, "_Tally"] = field(default_factory=dict)

    def add(self, request: ProbeRequest, selection: Selection) -> None:
        """Take a selection of what was offered; a later one of the same domain and method
        replaces it."""
        key = request.domain_id, request.method
        self.chosen[key] = selection.chosen
        self.rejections.extend(selection.rejected)
        score_of = {each.model_id: each.joint_score for each in selection.candidates}
        rejected = {each.model_id for each in selection.rejected}
        for card in request.candidates:
            tally = self.tallies.setdefault((card.model_id, card.domain_id), _Tally())
            tally.scores[request.domain_id] = score_of.get(card.model_id)
            for ids, tallied in ((selection.chosen, tally.chosen), (rejected, tally.rejected)):
                tallied.discard(key)
                if card.model_id in ids:
                    tallied.add(key)

    def peers(self, round_index: int) -> tuple[PeerFindings, ...]:
        """What the probes of the round found of each model."""
        return tuple(
            PeerFindings(
                model_id=model_id,
                domain_id=domain_id,
                round_index=round_index,
                probed=len(tally.scores),
                chosen=len({domain_id for domain_id, _ in tally.chosen}),
                rejected=len({domain_id for domain_id, _ in tally.rejected}),
                joint_score=tally.mean_score(),
            )
            for (model_id, domain_id), tally in sorted(self.tallies.items())
        )


@dataclass(slots=True)
class _Tally:
    """The scores that domains gave a model; which of them chose and rejected it, by method."""

    scores: dict[str, float | None] = field(default_factory=dict)
    chosen: set[TargetMethod] = field(default_factory=set)
    rejected: set[TargetMethod] = field(default_factory=set)

    def mean_score(self) -> float | None:
        known = [score for score in self.scores.values() if score is not None]
        return fmean(known) if known else None


def rank_candidates(
    profiles: Mapping[str, DomainProfile],
    methods: Sequence[Method],
    state: SystemState,
    config: ExpansionConfig,
) -> CandidatesByMethod:
    """By method and target domain, the cards that stage one ranks nearest; each catalogue once."""
    ranked: dict[bool, dict[str, RankedCards]] = {}
    for method in methods:
        if method.sources_needed in ("selected", "centroids") and method.initial_only not in ranked:
            cards = visible_cards(method, state.latest)
            nearest = _rank_sound(list(profiles.values()), cards, state, config)
            ranked[method.initial_only] = dict(zip(profiles, nearest, strict=True))
    return {method.name: ranked.get(method.initial_only, {}) for method in methods}


def choose_sources(
    near: CandidatesByMethod,
    profiles: Mapping[str, DomainProfile],
    methods: Sequence[Method],
    state: SystemState,
    config: ExpansionConfig,
    edge: Edge,
    budgets: Budgets,
) -> SourceSelection:
    """Every target domain probes its nearest candidates for every method that selects, as many of
    them as its budget allows.

    A domain that rejected candidates probes again: the accepted ones, whose bases it has already,
    and the next nearest instead of the others, so that rejected sources displace no honest ones.
    The later selection counts; without rejections nothing is asked twice.
    """
    choice, index = SourceSelection(), state.round_index
    selecting = [method for method in methods if method.sources_needed == "selected"]
    requests = []
    for method in selecting:
        for domain_id in profiles:
            request = budgets.probe_request(
                _probe_request(domain_id, method.name, index, near[method.name][domain_id])
            )
            choice.chosen[domain_id, method.name] = ()
            requests += [] if request is None else [request]
    rejected_ids: dict[TargetMethod, set[str]] = defaultdict(set)
    for left in reversed(range(_PROBES)):
        probed: dict[TargetMethod, ProbeRequest] = {}
        for request, selection in _ask(requests, edge, choice.failures, budgets):
            key = request.domain_id, request.method
            choice.add(request, selection)
            rejected_ids[key] |= {rejection.model_id for rejection in selection.rejected}
            if selection.rejected:
                probed[key] = request
        if not probed or not left:
            break
        rejecting = {domain_id: profiles[domain_id] for domain_id, _ in probed}
        wanted = config.selection.candidates_wanted
        most = wanted + max(len(rejected_ids[key]) for key in probed)
        wider = replace(config, selection=replace(config.selection, num_candidates=most))
        further = rank_candidates(rejecting, selecting, state, wider)
        requests = []
        for (domain_id, name), request in probed.items():
            ids, near_cards = rejected_ids[domain_id, name], further[name][domain_id]
            accepted = [pair for pair in near_cards if pair[0].model_id not in ids]
            known = {card.model_id for card in request.candidates}
            again = budgets.probe_request(_probe_request(domain_id, name, index, accepted[:wanted]))
            if again and any(card.model_id not in known for card in again.candidates):
                requests.append(again)
    return choice


def visible_cards(method: Method, cards: Catalogue) -> Catalogue:
    """The cards that a method may be offered."""
    return cards.where(cards.round_indices == 0) if method.initial_only else cards


def nearest_first(
    profile: DomainProfile, method: Method, state: SystemState, config: ExpansionConfig
) -> list[ModelCard]:
    """All cards that a method may be offered, as stage one ranks them."""
    cards = visible_cards(method, state.owned)
    every = replace(config.selection, num_candidates=max(len(cards), 1))
    (ranked,) = _rank_sound([profile], cards, state, replace(config, selection=every))
    return [card for card, _ in ranked]


def as_failure(response: Response, request: Request) -> Failure:
    """The failure that a response is: a named one, or one of another kind than was asked for."""
    if isinstance(response, Failure):
        return response
    what = f"answer of {request.domain_id}: got a {type(response).__name__}"
    return failure_of(request, EdgeError(f"{what}, wanted what was asked for"))


def _rank_sound(
    profiles: Sequence[DomainProfile], cards: Catalogue, state: SystemState, config: ExpansionConfig
) -> list[RankedCards]:
    """The coarse ranking, with sources that several target domains rejected behind all others."""
    wanted = config.selection.candidates_wanted
    reported = state.reported_sources(config.trust.min_reports, config.trust.report_rounds)
    sound = cards.without(domain_ids=reported)
    if config.selection.score == RANDOM:
        every = replace(config.selection, num_candidates=max(len(sound), 1))
        return [
            [ranked[int(n)] for n in _drawn(profile, len(ranked), state, config)[:wanted]]
            for profile, ranked in zip(
                profiles, rank_catalogue(profiles, sound, every), strict=True
            )
        ]
    nearest = rank_catalogue(profiles, sound, config.selection)
    if len(sound) < min(len(cards), wanted + 1):
        last = cards.of_domains(reported)
        behind = rank_catalogue(profiles, last, config.selection)
        nearest = [(a + b)[:wanted] for a, b in zip(nearest, behind, strict=True)]
    return nearest


def _drawn(
    profile: DomainProfile, count: int, state: SystemState, config: ExpansionConfig
) -> IntArray:
    keys = config.seed, profile.domain_id, state.round_index
    return stream("random-candidates", *keys).permutation(count)


def _probe_request(domain_id: str, method: str, index: int, near: RankedCards) -> ProbeRequest:
    return ProbeRequest(
        domain_id=domain_id,
        round_index=index,
        method=method,
        candidates=tuple(card.for_probe() for card, _ in near),
        coarse_distances=tuple(distance for _, distance in near),
    )


def _ask(
    requests: Sequence[ProbeRequest], edge: Edge, failures: list[Failure], budgets: Budgets
) -> list[tuple[ProbeRequest, Selection]]:
    """The requests that were answered by a selection of what they offered; others failed."""
    answered = []
    for request, response in zip(requests, edge.ask(requests), strict=True):
        budgets.probed(request, response)
        if not isinstance(response, Selection):
            failures.append(as_failure(response, request))
            continue
        try:
            _check_offered(response, request)
        except EdgeError as error:
            failures.append(failure_of(request, error))
        else:
            answered.append((request, response))
    return answered


def _check_offered(selection: Selection, request: ProbeRequest) -> None:
    """Raises EdgeError for what is chosen or rejected and was never offered."""
    what = f"selection of {request.domain_id}"
    if foreign := sorted(set(selection.chosen) - {card.model_id for card in request.candidates}):
        raise EdgeError(f"{what}: got {foreign[0]}, never offered")
    check_rejected(what, selection.rejected, request.candidates)


def check_rejected(
    what: str, rejected: Sequence[RejectedSource], cards: Sequence[ModelCard]
) -> None:
    """Raises EdgeError for a rejection of what was not among the request's cards."""
    offered = {(card.model_id, card.domain_id) for card in cards}
    for each in rejected:
        if (each.model_id, each.domain_id) not in offered:
            raise EdgeError(f"{what}: rejects {each.model_id} of {each.domain_id}, never offered")
