"""The cloud half of a round: profiles in, a selection each, requests out, models admitted.

State in, state out; nothing here opens a socket, a file or a clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graft.core.config import ExpansionConfig
from graft.core.exchange import (
    Failure,
    GrowRequest,
    ProfileRequest,
    TrainRequest,
    TrainResult,
    failure_of,
)
from graft.core.ports import Edge
from graft.core.records import DomainProfile, ModelCard, PeerFindings, RejectedSource, SystemState
from graft.core.results import missing_metrics
from graft.errors import EdgeError
from graft.methods import INITIAL, Method, find_method
from graft.rounds.admissible import digest_failure
from graft.rounds.budget import Budgets
from graft.rounds.exchange_cost import UNREGISTERED
from graft.rounds.source_selection import (
    as_failure,
    check_rejected,
    choose_sources,
    nearest_first,
    rank_candidates,
)
from graft.selection import RECOMPUTED

Admission = Callable[[ModelCard], ModelCard]
FindFault = Callable[[ModelCard], str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """A finished round: the next state, every domain's result or failure, the profiles, and what
    target domains found in their probes."""

    state: SystemState
    reports: tuple[TrainResult | Failure, ...]
    profiles: tuple[DomainProfile, ...] = ()
    peers: tuple[PeerFindings, ...] = ()

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(report for report in self.reports if isinstance(report, Failure))


def train_initial_domains(domain_ids: Sequence[str], edge: Edge, admit: Admission) -> Round:
    """Round 0: every initial domain trains on its own labels and registers its model.

    ``admit`` checks and signs a card, or raises GraftError. A domain that failed is among the
    round's ``failures``.
    """
    profiles, failures = ask_profiles(domain_ids, 0, (INITIAL,), edge)
    requests = [
        TrainRequest(domain_id=d, round_index=0, method=INITIAL, sources=(), register=True)
        for d in profiles
    ]
    reports = [*failures, *train_results(requests, edge)]
    return _admit_reports(SystemState(), INITIAL, reports, profiles, admit)


def expand_system(
    state: SystemState,
    targets: Sequence[str],
    edge: Edge,
    admit: Admission,
    config: ExpansionConfig,
    find_fault: FindFault = lambda card: None,
    budgets: Budgets | None = None,
) -> Round:
    """One round: target domains are profiled and matched, train, and join the catalogue.

    Parameters
    ----------
    state : SystemState
        The catalogue so far; it is not changed.
    targets : sequence of str
        The target domains of this round.
    edge : Edge
        The way to them.
    admit : callable
        Checks and signs a card; raises GraftError for one that is refused.
    config : ExpansionConfig
        Every one of ``config.methods`` trains a model for every target domain, and that of
        ``config.method`` is admitted.
    find_fault : callable
        The fault of a reported source that the server finds in its own store, or None. Only such
        reports count in later rounds; without it none does.
    budgets : Budgets, optional
        Those of this round, where the configuration or a device sets limits.

    Returns
    -------
    Round
        A domain that failed is among its ``failures``, once for each method.
    """
    index = state.round_index
    budgets = budgets or Budgets(config)
    profiles, failures = ask_profiles(targets, index, config.methods, edge, budgets)
    methods = [find_method(name) for name in config.methods]
    near = rank_candidates(profiles, methods, state, config)
    choice = choose_sources(near, profiles, methods, state, config, edge, budgets)
    failures += choice.failures
    failed = {(failure.domain_id, failure.method) for failure in failures}
    found = state.latest.find({model_id for ids in choice.chosen.values() for model_id in ids})
    chosen = {model_id: card.for_fusion() for model_id, card in found.items()}
    needs_all = any(method.sources_needed == "all" for method in methods)
    everyone = tuple(state.latest) if needs_all else ()
    read = {c.model_id: c.inputs or (c.profile.inputs if c.profile else ()) for c in everyone}
    shipped = tuple(card.for_fusion() for card in everyone)
    visible = {True: tuple(c for c in shipped if not c.round_index), False: shipped}
    averages = tuple(card.for_fusion() for card in state.architecture_averages)

    def sources(method: Method, domain_id: str) -> tuple[ModelCard, ...]:
        if method.sources_needed == "none":
            return ()
        if method.sources_needed == "centroids":
            return tuple(card.for_probe() for card, _ in near[method.name][domain_id])
        if method.sources_needed == "selected":
            return tuple(chosen[model_id] for model_id in choice.chosen[domain_id, method.name])
        if budgets.limits(domain_id, method.name):  # the nearest first: not all may fit
            profile = profiles[domain_id]
            return tuple(c.for_fusion() for c in nearest_first(profile, method, state, config))
        cards, streams = visible[method.initial_only], profiles[domain_id].inputs
        if streams:  # a model is no source of a domain that lacks a stream it reads
            cards = tuple(c for c in cards if {*read[c.model_id]} <= {*streams})
        return cards

    wanted = [
        TrainRequest(
            domain_id=domain_id,
            round_index=index,
            method=method.name,
            sources=sources(method, domain_id),
            register=method.name == config.method,
            architecture_averages=averages if method.needs_average else (),
        )
        for method in methods
        for domain_id in profiles
        if (domain_id, method.name) not in failed
    ]
    planned = [
        budgets.train_request(each) if budgets.limits(each.domain_id, each.method) else each
        for each in wanted
    ]
    requests = [each for each in planned if isinstance(each, TrainRequest)]
    failures += [each for each in planned if isinstance(each, Failure)]
    reports = [
        *failures,
        *(
            budgets.explained(report) if budgets.limits(report.domain_id, report.method) else report
            for report in train_results(requests, edge)
        ),
    ]
    rejections = choice.rejections + [
        each for report in reports if isinstance(report, TrainResult) for each in report.rejected
    ]
    oldest = state.round_index - config.trust.report_rounds
    current = [each for each in state.rejections if each.round_index > oldest]
    noted = replace(state, rejections=()).note(
        [*current, *_confirmed(rejections, state, find_fault)]
    )
    done = _admit_reports(noted, config.method, reports, profiles, admit)
    return replace(done, peers=choice.peers(index))


def _confirmed(
    rejections: Sequence[RejectedSource], state: SystemState, find_fault: FindFault
) -> list[RejectedSource]:
    """The round's rejections, confirmed where the server finds a fault of the source itself."""
    reported = {(r.model_id, r.domain_id) for r in rejections if r.reason in RECOMPUTED}
    named = state.catalogue.of_models({model_id for model_id, _ in reported})
    cards = {(card.model_id, card.domain_id): card for card in named}
    faulty = {key for key in reported if find_fault(cards[key]) is not None}
    return [
        replace(
            each,
            round_index=state.round_index,
            confirmed=each.reason in RECOMPUTED and (each.model_id, each.domain_id) in faulty,
        )
        for each in rejections
    ]


def ask_profiles(
    domain_ids: Sequence[str],
    index: int,
    methods: Sequence[str],
    edge: Edge,
    budgets: Budgets | None = None,
) -> tuple[dict[str, DomainProfile], list[Failure]]:
    """Profiles by domain; a domain that gives none fails in every method."""
    profiles: dict[str, DomainProfile] = {}
    failures: list[Failure] = []
    requests = [
        budgets.profile_request(domain_id, index)
        if budgets
        else ProfileRequest(domain_id=domain_id, round_index=index)
        for domain_id in domain_ids
    ]
    for request, response in zip(requests, edge.ask(requests), strict=True):
        if isinstance(response, DomainProfile):
            profiles[request.domain_id] = response
            if budgets:
                budgets.open(request, response, methods)
        else:
            failure = as_failure(response, request)
            failures += [replace(failure, method=method) for method in methods]
    return profiles, failures


def _admit_reports(
    state: SystemState,
    main: str,
    reports: Sequence[TrainResult | Failure],
    profiles: dict[str, DomainProfile],
    admit: Admission,
) -> Round:
    """Admit what the main method registered; a model that is refused is a failure."""
    cards: list[ModelCard] = []
    final: list[TrainResult | Failure] = []
    registered = [r.card for r in reports if isinstance(r, TrainResult) and r.card is not None]
    known = state.owned.find({card.model_id for card in registered})
    owners = {model_id: card.domain_id for model_id, card in known.items()}
    for report in reports:
        unregistered = getattr(report, "left_out", ())[-1:] == (UNREGISTERED,)
        if isinstance(report, TrainResult) and report.method == main and not unregistered:
            try:
                card = own_card(report)
                owner = owners.get(card.model_id, card.domain_id)
                # A method may keep a source as it is; parents are sources that it was sent.
                if owner != card.domain_id and card.model_id not in card.parents:
                    raise EdgeError(
                        f"report of {report.domain_id}: got model {card.model_id} of {owner}, "
                        "wanted its own"
                    )
                cards.append(admit(replace(card, profile=profiles[report.domain_id])))
                owners.setdefault(card.model_id, card.domain_id)
            except Exception as error:
                report = digest_failure(report, error)
        final.append(report)
    return Round(
        state=state.admit(tuple(cards)), reports=tuple(final), profiles=tuple(profiles.values())
    )


def own_card(report: TrainResult) -> ModelCard:
    """The card of what a domain registered; raises EdgeError for none, another domain's, one of
    another round, or one that knows no class."""
    card, what = report.card, f"report of {report.domain_id}"
    if card is None:
        raise EdgeError(f"{what}: got no card, wanted one")
    if card.domain_id != report.domain_id:
        raise EdgeError(f"{what}: got a card of {card.domain_id}")
    if card.round_index != report.round_index:
        raise EdgeError(
            f"{what}: got a card of round {card.round_index}, wanted {report.round_index}"
        )
    if not card.class_mask_C.any():
        raise EdgeError(f"{what}: got a card of a model that knows no class, wanted 1 or more")
    return card


def train_results(
    requests: Sequence[TrainRequest | GrowRequest], edge: Edge
) -> list[TrainResult | Failure]:
    """The answers to the requests, in their order; what cannot be a row of results has failed."""
    reports: list[TrainResult | Failure] = []
    for request, response in zip(requests, edge.ask(requests), strict=True):
        if not isinstance(response, TrainResult):
            reports.append(as_failure(response, request))
        elif missing := missing_metrics(response.metrics):
            error = EdgeError(f"report of {request.domain_id}: got no {', '.join(missing)}")
            reports.append(failure_of(request, error))
        else:
            try:
                _check_sources(response, request)
                reports.append(response)
            except EdgeError as error:
                reports.append(failure_of(request, error))
    return reports


def _check_sources(result: TrainResult, request: TrainRequest | GrowRequest) -> None:
    """Raises EdgeError for a result that names sources which its request did not have."""
    what = f"report of {request.domain_id}"
    if isinstance(request, GrowRequest):
        sources: tuple[ModelCard, ...] = (request.model,)
        sent = sources
    else:
        sources, sent = request.sources, (*request.sources, *request.architecture_averages)
    check_rejected(what, result.rejected, sources)
    foreign = {*result.source_domains} - {card.domain_id for card in sent}
    if result.card is not None:
        foreign |= {*result.card.parents} - {card.model_id for card in sent}
    if foreign:
        raise EdgeError(f"{what}: learnt from {min(foreign)}, wanted sources that it was sent")
