"""FedAvg among the initial domains: who trains from what, who is averaged, and who gets the average."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from fakes import SIGNER
from graft_server.fedavg import FlowerAveraging
from graft_server.run_folder import RunFolder
from small_system import ARRIVING, CONFIG, INITIAL_DOMAINS, WORLD, System

from graft.core.config import ExpansionConfig
from graft.core.exchange import (
    ProbeRequest,
    Request,
    Response,
    TrainRequest,
    TrainResult,
    failure_of,
)
from graft.core.ledger import total_bytes
from graft.core.payload import decode_payload
from graft.core.records import ModelCard, SystemState
from graft.core.results import result_row, run_hash
from graft.methods.federated import FEDAVG_LOCAL
from graft.rounds import Round, average_by_architecture, expand_system

FEDAVG_ROUNDS = 2
SETTINGS = replace(
    CONFIG,
    comparisons=("fedavg", "feddf", "fedproto", "label-only"),
    training=replace(CONFIG.training, fedavg_rounds=FEDAVG_ROUNDS),
)
Change = Callable[[Request, Response], Response]


@dataclass
class Grouped:
    """A founded system with groups; ``local`` are the initial domains' parts, as asked and answered."""

    system: System
    trained: Round
    done: Round
    local: list[tuple[TrainRequest, Response]]


def averaging(system: System) -> FlowerAveraging:
    return FlowerAveraging(system.store, system.admit, WORLD.task, system.config.seed)


def grow(
    config: ExpansionConfig = SETTINGS, change: Change = lambda request, told: told
) -> Grouped:
    local: list[tuple[TrainRequest, Response]] = []

    def heard(request: Request, response: Response) -> Response:
        response = change(request, response)
        if isinstance(request, TrainRequest) and request.method == FEDAVG_LOCAL:
            local.append((request, response))
        return response

    system = System(config=config, change=heard)
    trained = system.found()
    done = average_by_architecture(trained, system.edge(), system.admit, averaging(system), config)
    return Grouped(system=system, trained=trained, done=done, local=local)


@pytest.fixture(scope="module")
def grouped() -> Grouped:
    return grow()


@pytest.fixture(scope="module")
def expanded(grouped: Grouped) -> tuple[Round, System]:
    system = System(config=SETTINGS, store=grouped.system.store)
    return system.expand(grouped.done.state), system


def parameters(grouped: Grouped, card: ModelCard) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return decode_payload(grouped.system.store.part(card.model_id, "exact"), None, None)[1]


def rounds_of(grouped: Grouped) -> list[list[tuple[TrainRequest, Response]]]:
    size = len(INITIAL_DOMAINS)
    assert len(grouped.local) == FEDAVG_ROUNDS * size
    return [grouped.local[start : start + size] for start in range(0, len(grouped.local), size)]


def test_without_a_method_that_wants_groups_nothing_happens() -> None:
    system = System()
    trained = system.found()
    asked = len(system.requests)
    assert (
        average_by_architecture(trained, system.edge(), system.admit, averaging(system), CONFIG)
        is trained
    )
    assert len(system.requests) == asked


def test_there_is_a_group_an_architecture_beside_an_unchanged_catalogue(grouped: Grouped) -> None:
    assert grouped.done.failures == ()
    state, before = grouped.done.state, grouped.trained.state
    assert (state.round_index, state.catalogue) == (before.round_index, before.catalogue)
    architectures = sorted({card.architecture for card in state.catalogue})
    assert len(architectures) < len(INITIAL_DOMAINS)  # at least one group has two members
    assert [card.domain_id for card in state.architecture_averages] == [
        f"group.{a}" for a in architectures
    ]
    for card in state.architecture_averages:
        assert card.signature == SIGNER.sign(card).signature


def test_every_round_starts_from_the_average_of_the_last(grouped: Grouped) -> None:
    starts = [
        {o.architecture_averages[0].domain_id: o.architecture_averages[0].model_id for o, _ in each}
        for each in rounds_of(grouped)
    ]
    for request, _ in grouped.local:
        assert (request.round_index, request.sources, request.register) == (0, (), True)
        assert len(request.architecture_averages) == 1
    begun = {f"group.{a}": averaging(grouped.system).begin(a).model_id
             for a in {c.architecture for c in grouped.done.state.architecture_averages}}  # fmt: skip
    ended = {card.domain_id: card.model_id for card in grouped.done.state.architecture_averages}
    assert starts[0] == begun
    assert all(starts[0][name] != starts[1][name] != ended[name] for name in ended)


def test_a_group_is_the_mean_of_its_members_last_models_weighted_by_their_rows(
    grouped: Grouped,
) -> None:
    members: dict[str, list[tuple[ModelCard, float]]] = defaultdict(list)
    for _, response in rounds_of(grouped)[-1]:
        assert isinstance(response, TrainResult)
        assert response.card is not None
        members[response.architecture].append((response.card, response.metrics["num_labelled"]))
    for group in grouped.done.state.architecture_averages:
        own = members[group.architecture]
        total = sum(rows for _, rows in own)
        mean = parameters(grouped, group)
        for name, array in mean.items():
            by_hand = sum(rows / total * parameters(grouped, card)[name] for card, rows in own)
            np.testing.assert_allclose(array, by_hand, atol=1e-6)
        known = np.any([card.class_mask_C for card, _ in own], axis=0)
        np.testing.assert_array_equal(group.class_mask_C, known)


def test_a_initial_domain_has_one_row_for_all_its_rounds(grouped: Grouped) -> None:
    rows = [r for r in grouped.done.reports if r.method == FEDAVG_LOCAL]
    assert [r.domain_id for r in rows] == sorted(INITIAL_DOMAINS)
    assert grouped.done.reports[: len(grouped.trained.reports)] == grouped.trained.reports
    for row in rows:
        assert isinstance(row, TrainResult)
        times = [a.compute_s for o, a in grouped.local
                 if o.domain_id == row.domain_id and isinstance(a, TrainResult)]  # fmt: skip
        assert row.compute_s == pytest.approx(sum(times))


def test_every_model_of_a_group_is_charged_both_ways(grouped: Grouped) -> None:
    entries = [e for e in grouped.system.entries if e.method == FEDAVG_LOCAL]

    def shipped(card: ModelCard) -> int:
        return min(card.shipped_bytes, card.payload_bytes)

    down = sum(shipped(request.architecture_averages[0]) for request, _ in grouped.local)
    up = sum(shipped(a.card) for _, a in grouped.local if isinstance(a, TrainResult) and a.card)
    assert total_bytes(entries, lambda e: e.phase == "ship" and e.sender == "depot") == down
    assert total_bytes(entries, lambda e: e.phase == "register") == up


def test_a_member_that_fails_is_named_asked_no_more_and_left_out() -> None:
    def spilt(request: Request, told: Response) -> Response:
        local = isinstance(request, TrainRequest) and request.method == FEDAVG_LOCAL
        if not local or request.domain_id != INITIAL_DOMAINS[1]:
            return told
        return replace(failure_of(request, ValueError("spilt")), method=FEDAVG_LOCAL)

    grouped = grow(change=spilt)
    assert [(f.domain_id, f.method, f.message) for f in grouped.done.failures] == [
        (INITIAL_DOMAINS[1], FEDAVG_LOCAL, "spilt")
    ]
    asked = [request.domain_id for request, _ in grouped.local]
    assert [asked.count(domain_id) for domain_id in INITIAL_DOMAINS] == [
        FEDAVG_ROUNDS,
        1,
        FEDAVG_ROUNDS,
    ]
    assert INITIAL_DOMAINS[1] in [card.domain_id for card in grouped.done.state.catalogue]
    # Whoever is left decides alone: two initial domains of two architectures are averaged with nobody.
    left = [response for _, response in grouped.local[-2:]]
    pushed = {a.card.model_id for a in left if isinstance(a, TrainResult) and a.card}
    assert {group.model_id for group in grouped.done.state.architecture_averages} == pushed


@pytest.mark.parametrize("case", ["no card", "another's card", "no rows", "another architecture"])
def test_a_report_that_cannot_be_averaged_is_a_failure_of_its_domain(case: str) -> None:
    def spoil(request: Request, told: Response) -> Response:
        local = isinstance(request, TrainRequest) and request.method == FEDAVG_LOCAL
        if not local or request.domain_id != INITIAL_DOMAINS[0]:
            return told
        assert isinstance(told, TrainResult)
        assert told.card is not None
        if case == "no card":
            return replace(told, card=None)
        if case == "no rows":
            return replace(told, metrics={**told.metrics, "num_labelled": 0.0})
        change = {"domain_id": "stranger"} if case == "another's card" else {"architecture": "gru"}
        return replace(told, card=replace(told.card, **change))

    (failure,) = grow(change=spoil).done.failures
    assert (failure.domain_id, failure.method) == (INITIAL_DOMAINS[0], FEDAVG_LOCAL)
    assert failure.error == "EdgeError"


def test_a_group_that_nobody_trained_is_none() -> None:
    def all_spilt(request: Request, told: Response) -> Response:
        local = isinstance(request, TrainRequest) and request.method == FEDAVG_LOCAL
        return failure_of(request, ValueError("spilt")) if local else told

    done = grow(change=all_spilt).done
    assert done.state.architecture_averages == ()
    assert {f.domain_id for f in done.failures} == set(INITIAL_DOMAINS)


def test_a_target_is_told_of_the_groups_where_its_method_wants_one(
    grouped: Grouped, expanded: tuple[Round, System]
) -> None:
    done, system = expanded
    assert done.failures == ()
    groups = [card.model_id for card in grouped.done.state.architecture_averages]
    for request in system.requests:
        if isinstance(request, TrainRequest):
            wanted = groups if request.method in ("fedavg", "feddf") else []
            assert [card.model_id for card in request.architecture_averages] == wanted
            assert not set(groups) & {card.model_id for card in request.sources}
        elif isinstance(request, ProbeRequest):
            assert not set(groups) & {card.model_id for card in request.candidates}
    assert done.state.architecture_averages == grouped.done.state.architecture_averages
    assert not set(groups) & {card.model_id for card in done.state.catalogue}


def test_a_target_fetches_the_model_of_its_own_group_and_pays_for_it(
    grouped: Grouped, expanded: tuple[Round, System]
) -> None:
    done, system = expanded
    groups = {card.architecture: card for card in grouped.done.state.architecture_averages}
    for report in done.reports:
        assert isinstance(report, TrainResult)
        if report.method != "fedavg":
            continue
        own = groups[report.architecture]
        assert report.source_domains == (own.domain_id,)
        fetched = [e for e in system.entries if e.message.startswith("payload.")
                   and (e.method, e.domain_id) == ("fedavg", report.domain_id)]  # fmt: skip
        assert sum(e.payload_bytes for e in fetched) == min(own.shipped_bytes, own.payload_bytes)


def test_prototypes_come_with_the_order_and_no_model_does(expanded: tuple[Round, System]) -> None:
    done, system = expanded
    requests = [o for o in system.requests if getattr(o, "method", "") == "fedproto"]
    assert [o.domain_id for o in requests] == list(ARRIVING[0])
    for request in requests:
        assert isinstance(request, TrainRequest)
        assert {card.domain_id for card in request.sources} == set(INITIAL_DOMAINS)
        assert all(c.centroids_CF is not None and c.profile is None for c in request.sources)
    entries = [e for e in system.entries if e.method == "fedproto"]
    assert {e.message for e in entries} == {"train.learn"}
    soft_targets = [r for r in done.reports if r.method == "fedproto"]
    assert all(
        isinstance(r, TrainResult) and set(r.source_domains) == set(INITIAL_DOMAINS)
        for r in soft_targets
    )


def test_a_target_whose_architecture_has_no_group_learns_from_its_labels(grouped: Grouped) -> None:
    state = replace(grouped.done.state, architecture_averages=())
    system = System(config=SETTINGS, store=grouped.system.store)
    done = expand_system(state, ARRIVING[0], system.edge(), system.admit, SETTINGS)
    scores = {(r.domain_id, r.method): r.metrics["accuracy"]
              for r in done.reports if isinstance(r, TrainResult)}  # fmt: skip
    for domain_id in ARRIVING[0]:
        assert scores[domain_id, "fedavg"] == scores[domain_id, "label-only"]


def test_two_foundings_have_one_hash_and_the_same_groups(grouped: Grouped) -> None:
    again = grow()

    def digest(each: Grouped) -> str:
        return run_hash([result_row(r) for r in each.done.reports], each.system.entries)

    assert digest(again) == digest(grouped)
    assert [c.model_id for c in again.done.state.architecture_averages] == [
        c.model_id for c in grouped.done.state.architecture_averages
    ]


def test_groups_outlast_the_rounds(grouped: Grouped) -> None:
    state = grouped.done.state.admit(())
    assert isinstance(state, SystemState)
    assert state.architecture_averages == grouped.done.state.architecture_averages


def test_a_run_that_stopped_after_the_initial_domains_goes_on_with_their_groups(
    grouped: Grouped, expanded: tuple[Round, System], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    folder.save_round(grouped.done.state, [], [])
    resumed = System(config=SETTINGS, store=grouped.system.store)
    again = resumed.expand(SIGNER.sign_state(folder.load_state()))

    def digest(done: Round, system: System) -> str:
        return run_hash([result_row(report) for report in done.reports], system.entries)

    assert digest(again, resumed) == digest(*expanded)
