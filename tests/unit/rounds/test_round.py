"""What a round admits, whom it serves, and what it survives."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fakes import SIGNER
from small_system import ARRIVING, CONFIG, INITIAL_DOMAINS, Grown, System

from graft.core.exchange import (
    Failure,
    ProbeRequest,
    ProfileRequest,
    Request,
    Response,
    Selection,
    TrainRequest,
    TrainResult,
)
from graft.core.ledger import is_upload, total_bytes
from graft.core.records import DomainProfile, ModelCard, SystemState
from graft.errors import PayloadChangedError
from graft.methods import INITIAL
from graft.rounds import Round, expand_system, train_initial_domains

Change = Callable[[Request, Response], Response]
Expand = Callable[..., tuple[Round, System]]
FIRST, SECOND = ARRIVING[0]


def domains(cards: tuple[ModelCard, ...]) -> list[str]:
    return [card.domain_id for card in cards]


def to(domain_id: str, kind: type, response: Change, method: str | None = None) -> Change:
    """Change only what ``domain_id`` answers to requests of this kind (and method)."""

    def change(request: Request, told: Response) -> Response:
        if request.domain_id != domain_id or not isinstance(request, kind):
            return told
        return (
            told
            if method not in (None, getattr(request, "method", None))
            else response(request, told)
        )

    return change


def failed(request: Request, _: Response) -> Failure:
    return Failure(
        domain_id=request.domain_id,
        round_index=request.round_index,
        method=getattr(request, "method", ""),
        error="DataError",
        message="spilt",
    )


def outcomes(done: Round) -> set[tuple[str, str, str]]:
    """(domain, method, error) of every report."""
    return {(r.domain_id, r.method, getattr(r, "error", "")) for r in done.reports}


def test_every_initial_domain_is_admitted_with_its_profile(grown: Grown) -> None:
    done = grown.rounds[0]
    assert done.failures == ()
    assert outcomes(done) == {(domain_id, INITIAL, "") for domain_id in INITIAL_DOMAINS}
    assert done.state.round_index == 1
    assert domains(done.state.catalogue) == sorted(INITIAL_DOMAINS)
    for card in done.state.catalogue:
        assert card.profile is not None
        assert card.profile.domain_id == card.domain_id
        assert (card.round_index, card.parents) == (0, ())
        assert card.signature == SIGNER.sign(card).signature
        assert card.model_id in grown.system.store


def test_the_catalogue_grows_by_the_models_of_the_main_method(grown: Grown) -> None:
    for before, done, targets in zip(grown.rounds, grown.rounds[1:], ARRIVING, strict=False):
        assert done.failures == ()
        assert done.state.round_index == before.state.round_index + 1
        old = len(before.state.catalogue)
        assert done.state.catalogue[:old] == before.state.catalogue
        assert domains(done.state.catalogue[old:]) == sorted(targets)
        soft_targets = {
            r.domain_id: r.card.model_id
            for r in done.reports
            if isinstance(r, TrainResult) and r.method == "hat" and r.card
        }
        assert {c.domain_id: c.model_id for c in done.state.catalogue[old:]} == soft_targets
        for report in done.reports:
            assert isinstance(report, TrainResult)
            assert (report.card is not None) == (report.method == "hat")


def test_every_target_is_served_by_every_method(grown: Grown) -> None:
    for done, targets in zip(grown.rounds[1:], ARRIVING, strict=True):
        assert outcomes(done) == {(d, m, "") for d in targets for m in CONFIG.methods}


def test_parents_are_models_of_the_catalogue_that_the_report_names(grown: Grown) -> None:
    for before, done in zip(grown.rounds, grown.rounds[1:], strict=False):
        owner = {card.model_id: card.domain_id for card in before.state.catalogue}
        for report in done.reports:
            if isinstance(report, TrainResult) and report.card:
                assert tuple(owner[p] for p in report.card.parents) == report.source_domains
                assert len(report.source_domains) == CONFIG.selection.num_sources


def test_initial_domains_only_never_sees_a_later_model_and_the_main_method_does(
    grown: Grown,
) -> None:
    offered: dict[str, set[int]] = {"hat": set(), "hat-initial": set()}
    for request in grown.system.requests:
        if isinstance(request, ProbeRequest):
            assert request.method in offered
            offered[request.method] |= {card.round_index for card in request.candidates}
    assert offered == {"hat": {0, 1}, "hat-initial": {0}}


def test_label_only_is_sent_no_source_and_pays_for_none(grown: Grown) -> None:
    requests = [o for o in grown.system.requests if getattr(o, "method", "") == "label-only"]
    assert len(requests) == sum(map(len, ARRIVING))
    assert all(isinstance(o, TrainRequest) and o.sources == () for o in requests)
    entries = [e for e in grown.system.entries if e.method == "label-only"]
    assert {e.message for e in entries} == {"train.learn"}


def test_a_selected_model_costs_its_base_when_probed_and_its_residual_when_shipped(
    grown: Grown,
) -> None:
    probes = [o for o in grown.system.requests if isinstance(o, ProbeRequest)]
    learns = [o for o in grown.system.requests if isinstance(o, TrainRequest) and o.method == "hat"]
    charged = {
        phase: total_bytes(
            grown.system.entries,
            lambda e, phase=phase: (  # type: ignore[misc]
                (e.method, e.phase, e.sender) == ("hat", phase, "depot")
            ),
        )
        for phase in ("probe", "ship")
    }
    hat_probes = [o for o in probes if o.method == "hat"]
    assert charged["probe"] == sum(c.base_bytes for o in hat_probes for c in o.candidates)
    # The base is on the device since the probe.
    assert charged["ship"] == sum(c.residual_bytes for o in learns for c in o.sources)
    assert charged["ship"] > 0


def test_a_registered_model_is_charged_on_its_way_up(grown: Grown) -> None:
    uploads = [e for e in grown.system.entries if e.phase == "register"]
    assert all(is_upload(e) for e in uploads)
    for card in grown.rounds[-1].state.catalogue:
        sent = total_bytes(uploads, lambda e, card=card: e.domain_id == card.domain_id)  # type: ignore[misc]
        assert sent == min(card.shipped_bytes, card.payload_bytes)


def test_a_device_is_told_no_more_of_a_model_than_it_needs(grown: Grown) -> None:
    for request in grown.system.requests:
        if isinstance(request, ProbeRequest):
            assert all(card.profile is None for card in request.candidates)
            assert all(card.centroids_CF is not None for card in request.candidates)
        elif isinstance(request, TrainRequest):
            assert all(card.profile is card.centroids_CF is None for card in request.sources)


def test_two_runs_have_one_hash(grown: Grown) -> None:
    again = System()
    _, digest = again.grow()
    assert digest == grown.digest


def test_the_order_in_which_targets_stand_changes_nothing(expand_trained: Expand) -> None:
    def told(done: Round) -> list[tuple[str, str, dict[str, float]]]:
        reports = [r for r in done.reports if isinstance(r, TrainResult)]
        rows = [(r.domain_id, r.method, dict(r.metrics)) for r in reports]
        return sorted(rows, key=lambda row: row[:2])

    forth, _ = expand_trained(targets=(FIRST, SECOND))
    back, _ = expand_trained(targets=(SECOND, FIRST))
    assert [c.model_id for c in forth.state.catalogue] == [c.model_id for c in back.state.catalogue]
    assert told(forth) == told(back)


def test_nobody_arriving_is_a_round_all_the_same(
    expand_trained: Expand, trained: SystemState
) -> None:
    done, _ = expand_trained(targets=())
    assert done.reports == ()
    assert done.state == SystemState(round_index=2, catalogue=trained.catalogue)


def test_without_a_catalogue_what_needs_sources_fails_by_name(expand_trained: Expand) -> None:
    done, _ = expand_trained(state=SystemState(round_index=1), targets=(FIRST,))
    assert outcomes(done) == {
        (FIRST, "hat", "TransportError"),
        (FIRST, "hat-initial", "TransportError"),
        (FIRST, "label-only", ""),
        (FIRST, "finetuned-same", ""),
    }
    assert done.state.catalogue == ()


def test_a_initial_domain_that_fails_is_named_and_not_admitted() -> None:
    system = System(change=to(INITIAL_DOMAINS[1], TrainRequest, failed))
    done = system.found()
    assert [(f.domain_id, f.error, f.message) for f in done.failures] == [
        (INITIAL_DOMAINS[1], "DataError", "spilt")
    ]
    assert domains(done.state.catalogue) == [INITIAL_DOMAINS[0], INITIAL_DOMAINS[2]]


def test_a_domain_without_a_profile_fails_in_every_method_and_is_asked_nothing_more(
    expand_trained: Expand,
) -> None:
    done, system = expand_trained(change=to(FIRST, ProfileRequest, failed))
    assert {o for o in outcomes(done) if o[0] == FIRST} == {
        (FIRST, method, "DataError") for method in CONFIG.methods
    }
    assert [type(o) for o in system.requests if o.domain_id == FIRST] == [ProfileRequest]
    assert {o for o in outcomes(done) if o[0] == SECOND} == {
        (SECOND, method, "") for method in CONFIG.methods
    }
    assert domains(done.state.catalogue) == [*INITIAL_DOMAINS, SECOND]


def test_a_failed_probe_costs_its_own_method_only(expand_trained: Expand) -> None:
    done, system = expand_trained(change=to(FIRST, ProbeRequest, failed, method="hat"))
    assert {o for o in outcomes(done) if o[2]} == {(FIRST, "hat", "DataError")}
    assert len(outcomes(done)) == 2 * len(CONFIG.methods)
    learns = [
        o.method for o in system.requests if isinstance(o, TrainRequest) and o.domain_id == FIRST
    ]
    assert sorted(learns) == sorted(set(CONFIG.methods) - {"hat"})
    assert domains(done.state.catalogue) == [*INITIAL_DOMAINS, SECOND]


def profile_of(request: Request, _: Response) -> DomainProfile:
    return DomainProfile(
        domain_id=request.domain_id,
        task="imu-world",
        num_samples=1,
        statistics_D=np.zeros(96, np.float32),
        class_counts_C=None,
    )


def selection_of(request: Request, _: Response) -> Selection:
    return Selection(domain_id=request.domain_id, candidates=(), chosen=())


@pytest.mark.parametrize(
    ("kind", "response", "methods"),
    [
        (ProfileRequest, selection_of, CONFIG.methods),
        (ProbeRequest, profile_of, ("hat", "hat-initial")),
        (TrainRequest, profile_of, CONFIG.methods),
        (TrainRequest, selection_of, CONFIG.methods),
    ],
)
def test_an_answer_of_another_kind_is_a_named_failure_of_that_domain_alone(
    expand_trained: Expand, kind: type, response: Change, methods: tuple[str, ...]
) -> None:
    done, _ = expand_trained(change=to(FIRST, kind, response))
    assert {o for o in outcomes(done) if o[2]} == {(FIRST, m, "EdgeError") for m in methods}
    assert domains(done.state.catalogue) == [*INITIAL_DOMAINS, SECOND]


def test_a_selection_of_a_model_that_was_never_offered_is_a_failure(expand_trained: Expand) -> None:
    def invent(_: Request, told: Response) -> Response:
        assert isinstance(told, Selection)
        return replace(told, chosen=(*told.chosen, "f" * 64))

    done, _ = expand_trained(change=to(FIRST, ProbeRequest, invent, method="hat"))
    assert [(f.domain_id, f.method, f.error) for f in done.failures] == [
        (FIRST, "hat", "EdgeError")
    ]
    assert "never offered" in done.failures[0].message
    assert domains(done.state.catalogue) == [*INITIAL_DOMAINS, SECOND]


def spoil_report(change: str) -> Change:
    def spoil(_: Request, told: Response) -> Response:
        assert isinstance(told, TrainResult)
        assert told.card is not None
        if change == "no card":
            return replace(told, card=None)
        if change == "another's card":
            return replace(told, card=replace(told.card, domain_id=SECOND))
        return replace(told, metrics={"macro_f1": 1.0})

    return spoil


@pytest.mark.parametrize("change", ["no card", "another's card", "no accuracy"])
def test_a_report_that_lacks_its_card_or_figures_admits_nothing(
    expand_trained: Expand, change: str
) -> None:
    done, _ = expand_trained(change=to(FIRST, TrainRequest, spoil_report(change), method="hat"))
    assert {o for o in outcomes(done) if o[2]} == {(FIRST, "hat", "EdgeError")}
    assert domains(done.state.catalogue) == [*INITIAL_DOMAINS, SECOND]


def test_a_profile_of_another_length_harms_its_own_domain_only(expand_trained: Expand) -> None:
    def cut(_: Request, told: Response) -> Response:
        assert isinstance(told, DomainProfile)
        return replace(told, statistics_D=told.statistics_D[:-1])

    done, _ = expand_trained(change=to(FIRST, ProfileRequest, cut))
    assert {o for o in outcomes(done) if o[2]} == {
        (FIRST, "hat", "TransportError"),
        (FIRST, "hat-initial", "TransportError"),
    }
    assert domains(done.state.catalogue) == [*INITIAL_DOMAINS, SECOND]


def test_a_card_that_the_store_refuses_is_a_failure_and_not_admitted() -> None:
    def refuse(card: ModelCard) -> ModelCard:
        if card.domain_id == INITIAL_DOMAINS[0]:
            raise PayloadChangedError("forged")
        return card

    done = train_initial_domains(INITIAL_DOMAINS[:2], System().edge(), refuse)
    assert [(f.domain_id, f.method, f.error) for f in done.failures] == [
        (INITIAL_DOMAINS[0], INITIAL, "PayloadChangedError")
    ]
    assert domains(done.state.catalogue) == [INITIAL_DOMAINS[1]]


def test_a_round_changes_no_state_but_makes_a_new_one(
    expand_trained: Expand, trained: SystemState
) -> None:
    before = trained.catalogue
    expand_trained(targets=(FIRST,))
    assert trained.round_index == 1
    assert trained.catalogue is before


def test_a_domain_unknown_to_the_edge_is_a_named_failure(trained: SystemState) -> None:
    system = System()
    done = expand_system(trained, ("user-000099",), system.edge(), system.admit, CONFIG)
    assert outcomes(done) == {("user-000099", m, "NodesMissingError") for m in CONFIG.methods}
