"""What a round admits, whom it serves, and what it survives."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fakes import SIGNER
from small_system import ARRIVING, CONFIG, FOUNDERS, Grown, System

from graft.core.ledger import is_upload, total_bytes
from graft.core.records import (
    Answer,
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
)
from graft.errors import PayloadChangedError
from graft.methods import FOUNDER
from graft.rounds import Round, expand_system, found_system

Change = Callable[[Order, Answer], Answer]
Expand = Callable[..., tuple[Round, System]]
FIRST, SECOND = ARRIVING[0]


def domains(cards: tuple[ModelCard, ...]) -> list[str]:
    return [card.domain_id for card in cards]


def to(domain_id: str, kind: type, answer: Change, method: str | None = None) -> Change:
    """Change only what ``domain_id`` answers to orders of this kind (and method)."""

    def change(order: Order, told: Answer) -> Answer:
        if order.domain_id != domain_id or not isinstance(order, kind):
            return told
        return told if method not in (None, getattr(order, "method", None)) else answer(order, told)

    return change


def failed(order: Order, _: Answer) -> Failure:
    return Failure(
        domain_id=order.domain_id,
        round_index=order.round_index,
        method=getattr(order, "method", ""),
        error="DataError",
        message="spilt",
    )


def outcomes(done: Round) -> set[tuple[str, str, str]]:
    """(domain, method, error) of every report."""
    return {(r.domain_id, r.method, getattr(r, "error", "")) for r in done.reports}


def test_every_founder_is_admitted_with_its_profile(grown: Grown) -> None:
    done = grown.rounds[0]
    assert done.failures == ()
    assert outcomes(done) == {(domain_id, FOUNDER, "") for domain_id in FOUNDERS}
    assert done.state.round_index == 1
    assert domains(done.state.catalogue) == sorted(FOUNDERS)
    for card in done.state.catalogue:
        assert card.profile is not None
        assert card.profile.domain_id == card.domain_id
        assert (card.round_index, card.parents) == (0, ())
        assert card.signature == SIGNER.sign(card).signature
        assert card.model_id in grown.system.store


def test_the_catalogue_grows_by_the_models_of_the_main_method(grown: Grown) -> None:
    for before, done, newcomers in zip(grown.rounds, grown.rounds[1:], ARRIVING, strict=False):
        assert done.failures == ()
        assert done.state.round_index == before.state.round_index + 1
        old = len(before.state.catalogue)
        assert done.state.catalogue[:old] == before.state.catalogue
        assert domains(done.state.catalogue[old:]) == sorted(newcomers)
        taught = {
            r.domain_id: r.card.model_id
            for r in done.reports
            if isinstance(r, LearnReport) and r.method == "hat" and r.card
        }
        assert {c.domain_id: c.model_id for c in done.state.catalogue[old:]} == taught
        for report in done.reports:
            assert isinstance(report, LearnReport)
            assert (report.card is not None) == (report.method == "hat")


def test_every_newcomer_is_served_by_every_method(grown: Grown) -> None:
    for done, newcomers in zip(grown.rounds[1:], ARRIVING, strict=True):
        assert outcomes(done) == {(d, m, "") for d in newcomers for m in CONFIG.methods}


def test_parents_are_models_of_the_catalogue_that_the_report_names(grown: Grown) -> None:
    for before, done in zip(grown.rounds, grown.rounds[1:], strict=False):
        owner = {card.model_id: card.domain_id for card in before.state.catalogue}
        for report in done.reports:
            if isinstance(report, LearnReport) and report.card:
                assert tuple(owner[p] for p in report.card.parents) == report.source_domains
                assert len(report.source_domains) == CONFIG.selection.num_sources


def test_founders_only_never_sees_a_later_model_and_the_main_method_does(grown: Grown) -> None:
    offered: dict[str, set[int]] = {"hat": set(), "hat-founders": set()}
    for order in grown.system.orders:
        if isinstance(order, ProbeOrder):
            assert order.method in offered
            offered[order.method] |= {card.round_index for card in order.candidates}
    assert offered == {"hat": {0, 1}, "hat-founders": {0}}


def test_label_only_is_sent_no_source_and_pays_for_none(grown: Grown) -> None:
    orders = [o for o in grown.system.orders if getattr(o, "method", "") == "label-only"]
    assert len(orders) == sum(map(len, ARRIVING))
    assert all(isinstance(o, LearnOrder) and o.sources == () for o in orders)
    entries = [e for e in grown.system.entries if e.method == "label-only"]
    assert {e.message for e in entries} == {"train.learn"}


def test_a_selected_model_costs_its_base_when_probed_and_its_residual_when_shipped(
    grown: Grown,
) -> None:
    probes = [o for o in grown.system.orders if isinstance(o, ProbeOrder)]
    learns = [o for o in grown.system.orders if isinstance(o, LearnOrder) and o.method == "hat"]
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
    for order in grown.system.orders:
        if isinstance(order, ProbeOrder):
            assert all(card.profile is None for card in order.candidates)
            assert all(card.centroids_CF is not None for card in order.candidates)
        elif isinstance(order, LearnOrder):
            assert all(card.profile is card.centroids_CF is None for card in order.sources)


def test_two_runs_have_one_hash(grown: Grown) -> None:
    again = System()
    _, digest = again.grow()
    assert digest == grown.digest


def test_the_order_in_which_newcomers_stand_changes_nothing(expand_founded: Expand) -> None:
    def told(done: Round) -> list[tuple[str, str, dict[str, float]]]:
        reports = [r for r in done.reports if isinstance(r, LearnReport)]
        rows = [(r.domain_id, r.method, dict(r.metrics)) for r in reports]
        return sorted(rows, key=lambda row: row[:2])

    forth, _ = expand_founded(newcomers=(FIRST, SECOND))
    back, _ = expand_founded(newcomers=(SECOND, FIRST))
    assert [c.model_id for c in forth.state.catalogue] == [c.model_id for c in back.state.catalogue]
    assert told(forth) == told(back)


def test_nobody_arriving_is_a_round_all_the_same(
    expand_founded: Expand, founded: SystemState
) -> None:
    done, _ = expand_founded(newcomers=())
    assert done.reports == ()
    assert done.state == SystemState(round_index=2, catalogue=founded.catalogue)


def test_without_a_catalogue_what_needs_sources_fails_by_name(expand_founded: Expand) -> None:
    done, _ = expand_founded(state=SystemState(round_index=1), newcomers=(FIRST,))
    assert outcomes(done) == {
        (FIRST, "hat", "TransportError"),
        (FIRST, "hat-founders", "TransportError"),
        (FIRST, "label-only", ""),
        (FIRST, "finetuned-same", ""),
    }
    assert done.state.catalogue == ()


def test_a_founder_that_fails_is_named_and_not_admitted() -> None:
    system = System(change=to(FOUNDERS[1], LearnOrder, failed))
    done = system.found()
    assert [(f.domain_id, f.error, f.message) for f in done.failures] == [
        (FOUNDERS[1], "DataError", "spilt")
    ]
    assert domains(done.state.catalogue) == [FOUNDERS[0], FOUNDERS[2]]


def test_a_domain_without_a_profile_fails_in_every_method_and_is_asked_nothing_more(
    expand_founded: Expand,
) -> None:
    done, system = expand_founded(change=to(FIRST, ProfileOrder, failed))
    assert {o for o in outcomes(done) if o[0] == FIRST} == {
        (FIRST, method, "DataError") for method in CONFIG.methods
    }
    assert [type(o) for o in system.orders if o.domain_id == FIRST] == [ProfileOrder]
    assert {o for o in outcomes(done) if o[0] == SECOND} == {
        (SECOND, method, "") for method in CONFIG.methods
    }
    assert domains(done.state.catalogue) == [*FOUNDERS, SECOND]


def test_a_failed_probe_costs_its_own_method_only(expand_founded: Expand) -> None:
    done, system = expand_founded(change=to(FIRST, ProbeOrder, failed, method="hat"))
    assert {o for o in outcomes(done) if o[2]} == {(FIRST, "hat", "DataError")}
    assert len(outcomes(done)) == 2 * len(CONFIG.methods)
    learns = [o.method for o in system.orders if isinstance(o, LearnOrder) and o.domain_id == FIRST]
    assert sorted(learns) == sorted(set(CONFIG.methods) - {"hat"})
    assert domains(done.state.catalogue) == [*FOUNDERS, SECOND]


def profile_of(order: Order, _: Answer) -> DomainProfile:
    return DomainProfile(
        domain_id=order.domain_id,
        task="imu-world",
        num_samples=1,
        statistics_D=np.zeros(96, np.float32),
        class_counts_C=None,
    )


def selection_of(order: Order, _: Answer) -> Selection:
    return Selection(domain_id=order.domain_id, candidates=(), chosen=())


@pytest.mark.parametrize(
    ("kind", "answer", "methods"),
    [
        (ProfileOrder, selection_of, CONFIG.methods),
        (ProbeOrder, profile_of, ("hat", "hat-founders")),
        (LearnOrder, profile_of, CONFIG.methods),
        (LearnOrder, selection_of, CONFIG.methods),
    ],
)
def test_an_answer_of_another_kind_is_a_named_failure_of_that_domain_alone(
    expand_founded: Expand, kind: type, answer: Change, methods: tuple[str, ...]
) -> None:
    done, _ = expand_founded(change=to(FIRST, kind, answer))
    assert {o for o in outcomes(done) if o[2]} == {(FIRST, m, "EdgeError") for m in methods}
    assert domains(done.state.catalogue) == [*FOUNDERS, SECOND]


def test_a_selection_of_a_model_that_was_never_offered_is_a_failure(expand_founded: Expand) -> None:
    def invent(_: Order, told: Answer) -> Answer:
        assert isinstance(told, Selection)
        return replace(told, chosen=(*told.chosen, "f" * 64))

    done, _ = expand_founded(change=to(FIRST, ProbeOrder, invent, method="hat"))
    assert [(f.domain_id, f.method, f.error) for f in done.failures] == [
        (FIRST, "hat", "EdgeError")
    ]
    assert "never offered" in done.failures[0].message
    assert domains(done.state.catalogue) == [*FOUNDERS, SECOND]


def spoil_report(change: str) -> Change:
    def spoil(_: Order, told: Answer) -> Answer:
        assert isinstance(told, LearnReport)
        assert told.card is not None
        if change == "no card":
            return replace(told, card=None)
        if change == "another's card":
            return replace(told, card=replace(told.card, domain_id=SECOND))
        return replace(told, metrics={"macro_f1": 1.0})

    return spoil


@pytest.mark.parametrize("change", ["no card", "another's card", "no accuracy"])
def test_a_report_that_lacks_its_card_or_figures_admits_nothing(
    expand_founded: Expand, change: str
) -> None:
    done, _ = expand_founded(change=to(FIRST, LearnOrder, spoil_report(change), method="hat"))
    assert {o for o in outcomes(done) if o[2]} == {(FIRST, "hat", "EdgeError")}
    assert domains(done.state.catalogue) == [*FOUNDERS, SECOND]


def test_a_profile_of_another_length_harms_its_own_domain_only(expand_founded: Expand) -> None:
    def cut(_: Order, told: Answer) -> Answer:
        assert isinstance(told, DomainProfile)
        return replace(told, statistics_D=told.statistics_D[:-1])

    done, _ = expand_founded(change=to(FIRST, ProfileOrder, cut))
    assert {o for o in outcomes(done) if o[2]} == {
        (FIRST, "hat", "TransportError"),
        (FIRST, "hat-founders", "TransportError"),
    }
    assert domains(done.state.catalogue) == [*FOUNDERS, SECOND]


def test_a_card_that_the_store_refuses_is_a_failure_and_not_admitted() -> None:
    def refuse(card: ModelCard) -> ModelCard:
        if card.domain_id == FOUNDERS[0]:
            raise PayloadChangedError("forged")
        return card

    done = found_system(FOUNDERS[:2], System().edge(), refuse)
    assert [(f.domain_id, f.method, f.error) for f in done.failures] == [
        (FOUNDERS[0], FOUNDER, "PayloadChangedError")
    ]
    assert domains(done.state.catalogue) == [FOUNDERS[1]]


def test_a_round_changes_no_state_but_makes_a_new_one(
    expand_founded: Expand, founded: SystemState
) -> None:
    before = founded.catalogue
    expand_founded(newcomers=(FIRST,))
    assert founded.round_index == 1
    assert founded.catalogue is before


def test_a_domain_unknown_to_the_edge_is_a_named_failure(founded: SystemState) -> None:
    system = System()
    done = expand_system(founded, ("user-000099",), system.edge(), system.admit, CONFIG)
    assert outcomes(done) == {("user-000099", m, "NodesMissingError") for m in CONFIG.methods}
