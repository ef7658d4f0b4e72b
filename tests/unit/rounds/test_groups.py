"""FedAvg among the founders: who trains from what, who is averaged, and who gets the average."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from fakes import SIGNER
from graft_server.fedavg import GroupAveraging
from graft_server.run_folder import RunFolder
from small_system import ARRIVING, CONFIG, FOUNDERS, WORLD, System

from graft.core.config import ExpansionConfig
from graft.core.ledger import total_bytes
from graft.core.records import (
    Answer,
    LearnOrder,
    LearnReport,
    ModelCard,
    Order,
    ProbeOrder,
    SystemState,
    failure_of,
)
from graft.core.results import result_row, run_hash
from graft.methods.fedavg import FEDAVG_LOCAL
from graft.rounds import Round, expand_system, found_groups
from graft.wire.payload.encoding import decode_payload

GROUP_ROUNDS = 2
SETTINGS = replace(
    CONFIG,
    comparisons=("fedavg", "feddf", "fedproto", "label-only"),
    training=replace(CONFIG.training, group_rounds=GROUP_ROUNDS),
)
Change = Callable[[Order, Answer], Answer]


@dataclass
class Grouped:
    """A founded system with groups; ``local`` are the founders' parts, as asked and answered."""

    system: System
    founded: Round
    done: Round
    local: list[tuple[LearnOrder, Answer]]


def averaging(system: System) -> GroupAveraging:
    return GroupAveraging(system.store, system.admit, WORLD.task, system.config.seed)


def grow(config: ExpansionConfig = SETTINGS, change: Change = lambda order, told: told) -> Grouped:
    local: list[tuple[LearnOrder, Answer]] = []

    def heard(order: Order, answer: Answer) -> Answer:
        answer = change(order, answer)
        if isinstance(order, LearnOrder) and order.method == FEDAVG_LOCAL:
            local.append((order, answer))
        return answer

    system = System(config=config, change=heard)
    founded = system.found()
    done = found_groups(founded, system.edge(), system.admit, averaging(system), config)
    return Grouped(system=system, founded=founded, done=done, local=local)


@pytest.fixture(scope="module")
def grouped() -> Grouped:
    return grow()


@pytest.fixture(scope="module")
def expanded(grouped: Grouped) -> tuple[Round, System]:
    system = System(config=SETTINGS, store=grouped.system.store)
    return system.expand(grouped.done.state), system


def parameters(grouped: Grouped, card: ModelCard) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return decode_payload(grouped.system.store.part(card.model_id, "exact"), None, None)[1]


def rounds_of(grouped: Grouped) -> list[list[tuple[LearnOrder, Answer]]]:
    size = len(FOUNDERS)
    assert len(grouped.local) == GROUP_ROUNDS * size
    return [grouped.local[start : start + size] for start in range(0, len(grouped.local), size)]


def test_without_a_method_that_wants_groups_nothing_happens() -> None:
    system = System()
    founded = system.found()
    asked = len(system.orders)
    assert found_groups(founded, system.edge(), system.admit, averaging(system), CONFIG) is founded
    assert len(system.orders) == asked


def test_there_is_a_group_an_architecture_beside_an_unchanged_catalogue(grouped: Grouped) -> None:
    assert grouped.done.failures == ()
    state, before = grouped.done.state, grouped.founded.state
    assert (state.round_index, state.catalogue) == (before.round_index, before.catalogue)
    architectures = sorted({card.architecture for card in state.catalogue})
    assert len(architectures) < len(FOUNDERS)  # at least one group has two members
    assert [card.domain_id for card in state.groups] == [f"group.{a}" for a in architectures]
    for card in state.groups:
        assert card.signature == SIGNER.sign(card).signature


def test_every_round_starts_from_the_average_of_the_last(grouped: Grouped) -> None:
    starts = [
        {o.groups[0].domain_id: o.groups[0].model_id for o, _ in each}
        for each in rounds_of(grouped)
    ]
    for order, _ in grouped.local:
        assert (order.round_index, order.sources, order.register) == (0, (), True)
        assert len(order.groups) == 1
    begun = {f"group.{a}": averaging(grouped.system).begin(a).model_id
             for a in {c.architecture for c in grouped.done.state.groups}}  # fmt: skip
    ended = {card.domain_id: card.model_id for card in grouped.done.state.groups}
    assert starts[0] == begun
    assert all(starts[0][name] != starts[1][name] != ended[name] for name in ended)


def test_a_group_is_the_mean_of_its_members_last_models_weighted_by_their_rows(
    grouped: Grouped,
) -> None:
    members: dict[str, list[tuple[ModelCard, float]]] = defaultdict(list)
    for _, answer in rounds_of(grouped)[-1]:
        assert isinstance(answer, LearnReport)
        assert answer.card is not None
        members[answer.architecture].append((answer.card, answer.metrics["num_labelled"]))
    for group in grouped.done.state.groups:
        own = members[group.architecture]
        total = sum(rows for _, rows in own)
        mean = parameters(grouped, group)
        for name, array in mean.items():
            by_hand = sum(rows / total * parameters(grouped, card)[name] for card, rows in own)
            np.testing.assert_allclose(array, by_hand, atol=1e-6)
        known = np.any([card.class_mask_C for card, _ in own], axis=0)
        np.testing.assert_array_equal(group.class_mask_C, known)


def test_a_founder_has_one_row_for_all_its_rounds(grouped: Grouped) -> None:
    rows = [r for r in grouped.done.reports if r.method == FEDAVG_LOCAL]
    assert [r.domain_id for r in rows] == sorted(FOUNDERS)
    assert grouped.done.reports[: len(grouped.founded.reports)] == grouped.founded.reports
    for row in rows:
        assert isinstance(row, LearnReport)
        times = [a.compute_s for o, a in grouped.local
                 if o.domain_id == row.domain_id and isinstance(a, LearnReport)]  # fmt: skip
        assert row.compute_s == pytest.approx(sum(times))


def test_every_model_of_a_group_is_charged_both_ways(grouped: Grouped) -> None:
    entries = [e for e in grouped.system.entries if e.method == FEDAVG_LOCAL]

    def shipped(card: ModelCard) -> int:
        return min(card.shipped_bytes, card.payload_bytes)

    down = sum(shipped(order.groups[0]) for order, _ in grouped.local)
    up = sum(shipped(a.card) for _, a in grouped.local if isinstance(a, LearnReport) and a.card)
    assert total_bytes(entries, lambda e: e.phase == "ship" and e.sender == "depot") == down
    assert total_bytes(entries, lambda e: e.phase == "register") == up


def test_a_member_that_fails_is_named_asked_no_more_and_left_out() -> None:
    def spilt(order: Order, told: Answer) -> Answer:
        local = isinstance(order, LearnOrder) and order.method == FEDAVG_LOCAL
        if not local or order.domain_id != FOUNDERS[1]:
            return told
        return replace(failure_of(order, ValueError("spilt")), method=FEDAVG_LOCAL)

    grouped = grow(change=spilt)
    assert [(f.domain_id, f.method, f.message) for f in grouped.done.failures] == [
        (FOUNDERS[1], FEDAVG_LOCAL, "spilt")
    ]
    asked = [order.domain_id for order, _ in grouped.local]
    assert [asked.count(domain_id) for domain_id in FOUNDERS] == [GROUP_ROUNDS, 1, GROUP_ROUNDS]
    assert FOUNDERS[1] in [card.domain_id for card in grouped.done.state.catalogue]
    # Whoever is left decides alone: two founders of two architectures are averaged with nobody.
    left = [answer for _, answer in grouped.local[-2:]]
    pushed = {a.card.model_id for a in left if isinstance(a, LearnReport) and a.card}
    assert {group.model_id for group in grouped.done.state.groups} == pushed


@pytest.mark.parametrize("case", ["no card", "another's card", "no rows", "another architecture"])
def test_a_report_that_cannot_be_averaged_is_a_failure_of_its_domain(case: str) -> None:
    def spoil(order: Order, told: Answer) -> Answer:
        local = isinstance(order, LearnOrder) and order.method == FEDAVG_LOCAL
        if not local or order.domain_id != FOUNDERS[0]:
            return told
        assert isinstance(told, LearnReport)
        assert told.card is not None
        if case == "no card":
            return replace(told, card=None)
        if case == "no rows":
            return replace(told, metrics={**told.metrics, "num_labelled": 0.0})
        change = {"domain_id": "stranger"} if case == "another's card" else {"architecture": "gru"}
        return replace(told, card=replace(told.card, **change))

    (failure,) = grow(change=spoil).done.failures
    assert (failure.domain_id, failure.method) == (FOUNDERS[0], FEDAVG_LOCAL)
    assert failure.error == "EdgeError"


def test_a_group_that_nobody_trained_is_none() -> None:
    def all_spilt(order: Order, told: Answer) -> Answer:
        local = isinstance(order, LearnOrder) and order.method == FEDAVG_LOCAL
        return failure_of(order, ValueError("spilt")) if local else told

    done = grow(change=all_spilt).done
    assert done.state.groups == ()
    assert {f.domain_id for f in done.failures} == set(FOUNDERS)


def test_a_newcomer_is_told_of_the_groups_where_its_method_wants_one(
    grouped: Grouped, expanded: tuple[Round, System]
) -> None:
    done, system = expanded
    assert done.failures == ()
    groups = [card.model_id for card in grouped.done.state.groups]
    for order in system.orders:
        if isinstance(order, LearnOrder):
            wanted = groups if order.method in ("fedavg", "feddf") else []
            assert [card.model_id for card in order.groups] == wanted
            assert not set(groups) & {card.model_id for card in order.sources}
        elif isinstance(order, ProbeOrder):
            assert not set(groups) & {card.model_id for card in order.candidates}
    assert done.state.groups == grouped.done.state.groups
    assert not set(groups) & {card.model_id for card in done.state.catalogue}


def test_a_newcomer_fetches_the_model_of_its_own_group_and_pays_for_it(
    grouped: Grouped, expanded: tuple[Round, System]
) -> None:
    done, system = expanded
    groups = {card.architecture: card for card in grouped.done.state.groups}
    for report in done.reports:
        assert isinstance(report, LearnReport)
        if report.method != "fedavg":
            continue
        own = groups[report.architecture]
        assert report.source_domains == (own.domain_id,)
        fetched = [e for e in system.entries if e.message.startswith("payload.")
                   and (e.method, e.domain_id) == ("fedavg", report.domain_id)]  # fmt: skip
        assert sum(e.payload_bytes for e in fetched) == min(own.shipped_bytes, own.payload_bytes)


def test_prototypes_come_with_the_order_and_no_model_does(expanded: tuple[Round, System]) -> None:
    done, system = expanded
    orders = [o for o in system.orders if getattr(o, "method", "") == "fedproto"]
    assert [o.domain_id for o in orders] == list(ARRIVING[0])
    for order in orders:
        assert isinstance(order, LearnOrder)
        assert {card.domain_id for card in order.sources} == set(FOUNDERS)
        assert all(c.centroids_CF is not None and c.profile is None for c in order.sources)
    entries = [e for e in system.entries if e.method == "fedproto"]
    assert {e.message for e in entries} == {"train.learn"}
    taught = [r for r in done.reports if r.method == "fedproto"]
    assert all(
        isinstance(r, LearnReport) and set(r.source_domains) == set(FOUNDERS) for r in taught
    )


def test_a_newcomer_whose_architecture_has_no_group_learns_from_its_labels(
    grouped: Grouped,
) -> None:
    state = replace(grouped.done.state, groups=())
    system = System(config=SETTINGS, store=grouped.system.store)
    done = expand_system(state, ARRIVING[0], system.edge(), system.admit, SETTINGS)
    scores = {(r.domain_id, r.method): r.metrics["accuracy"]
              for r in done.reports if isinstance(r, LearnReport)}  # fmt: skip
    for domain_id in ARRIVING[0]:
        assert scores[domain_id, "fedavg"] == scores[domain_id, "label-only"]


def test_two_foundings_have_one_hash_and_the_same_groups(grouped: Grouped) -> None:
    again = grow()

    def digest(each: Grouped) -> str:
        return run_hash([result_row(r) for r in each.done.reports], each.system.entries)

    assert digest(again) == digest(grouped)
    assert [c.model_id for c in again.done.state.groups] == [
        c.model_id for c in grouped.done.state.groups
    ]


def test_groups_outlast_the_rounds(grouped: Grouped) -> None:
    state = grouped.done.state.admit(())
    assert isinstance(state, SystemState)
    assert state.groups == grouped.done.state.groups


def test_a_run_that_stopped_after_the_founders_goes_on_with_their_groups(
    grouped: Grouped, expanded: tuple[Round, System], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    folder.save_round(grouped.done.state, [], [])
    resumed = System(config=SETTINGS, store=grouped.system.store)
    again = resumed.expand(folder.load_state())

    def digest(done: Round, system: System) -> str:
        return run_hash([result_row(report) for report in done.reports], system.entries)

    assert digest(again, resumed) == digest(*expanded)
