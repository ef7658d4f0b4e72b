"""A round's ledger becomes simulated seconds: by hand, by method, whatever its request."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import SIGNER, world_devices, world_store
from graft_simulation.clock.simulated_clock import SimulatedClock, _Costs, simulate_round
from graft_simulation.clock.timelines import ComputeTimes
from graft_simulation.in_process import LocalEdge
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core.config import (
    DeviceConfig,
    ExpansionConfig,
    NetworkConfig,
    SplitConfig,
    TrainingConfig,
    WorldConfig,
)
from graft.core.exchange import ProbeRequest, ProfileRequest, Selection
from graft.core.ledger import DEPOT, SERVER, canonical_key
from graft.core.records import DomainProfile, LedgerEntry, ModelCard, Outcome, Phase
from graft.core.results import ResultRow, result_row
from graft.data.synthetic.imu import ImuWorld
from graft.rounds import expand_system, train_initial_domains

# Everyone has the one link: 1 MB/s down, half up, a tenth of a second of latency.
LINK = """
[wire]
up_bits_per_s = 4e6
down_bits_per_s = 8e6
latency_s = 0.1
loss = 0.0
source = "test"
"""
KILOBYTES = 1_000


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExpansionConfig:
    path: Path = tmp_path_factory.mktemp("links") / "links.toml"
    path.write_text(LINK, "utf-8")
    return ExpansionConfig(network=NetworkConfig(classes_file=str(path)))


def sent(
    domain_id: str,
    phase: Phase,
    kilobytes: float,
    *,
    up: bool = False,
    method: str = "hat",
    depot: bool = False,
    cached: bool = False,
    outcome: Outcome = "ok",
) -> LedgerEntry:
    cloud = DEPOT if depot else SERVER
    num_bytes = int(kilobytes * KILOBYTES)
    return LedgerEntry(
        run="run", round_index=1, phase=phase, method=method, domain_id=domain_id,
        sender=domain_id if up else cloud, receiver=cloud if up else domain_id, message="m",
        payload_bytes=num_bytes, wire_bytes=num_bytes, wire_source="modelled", cached=cached,
        outcome=outcome,
    )  # fmt: skip


def task(domain_id: str, method: str = "hat") -> list[LedgerEntry]:
    """A whole round: 1 kB requests and answers, two bases of 100 kB probed, one held, one residual
    of 300 kB shipped, a model of 200 kB registered."""
    return [
        sent(domain_id, "profile", 1, method=""),
        sent(domain_id, "profile", 1, method="", up=True),
        sent(domain_id, "probe", 1, method=method),
        sent(domain_id, "probe", 100, method=method, depot=True),
        sent(domain_id, "probe", 100, method=method, depot=True),
        sent(domain_id, "probe", 1, method=method, up=True),
        sent(domain_id, "ship", 1, method=method),
        sent(domain_id, "ship", 0, method=method, depot=True, cached=True),
        sent(domain_id, "ship", 300, method=method, depot=True),
        sent(domain_id, "register", 200, method=method, up=True, depot=True),
        sent(domain_id, "acknowledge", 1, method=method, depot=True),
        sent(domain_id, "report", 1, method=method, up=True),
    ]


# 1 kB on the wire: down at 1 MB/s, up at half of it; 100 kB 0.2 s; 300 kB 0.4 s; up 200 kB 0.5 s.
DOWN_S, UP_S = 0.1 + 1_000e-6, 0.1 + 2_000e-6
WAY_S = [DOWN_S, UP_S, DOWN_S, 0.2, 0.2, UP_S, DOWN_S, 0.0, 0.4, 0.5, 0.101, UP_S]


def test_a_round_of_one_device_is_the_sum_of_its_steps(config: ExpansionConfig) -> None:
    seconds = {("ann", "hat"): ComputeTimes(probe_s=2.0, learn_s=(30.0,))}
    times = simulate_round(task("ann"), seconds, config)
    assert times.entry_s == pytest.approx(WAY_S)
    assert times.compute_s == {("ann", "hat"): 30.0}
    assert times.finish_s["ann", "hat"] == pytest.approx(sum(WAY_S) + 32.0)
    assert times.makespan_s["hat"] == pytest.approx(sum(WAY_S) + 32.0)


def test_a_quick_device_waits_for_the_slow_one_between_phases(config: ExpansionConfig) -> None:
    seconds = {
        ("ann", "hat"): ComputeTimes(probe_s=1.0, learn_s=(1.0,)),
        ("ben", "hat"): ComputeTimes(probe_s=9.0, learn_s=(1.0,)),
    }
    times = simulate_round([*task("ann"), *task("ben")], seconds, config)
    # ann's own probe would have ended 8 s before; messages take no longer for that.
    assert times.finish_s["ann", "hat"] == pytest.approx(sum(WAY_S) + 10.0)
    assert times.entry_s == pytest.approx([*WAY_S, *WAY_S])


def test_no_method_slows_another_down(config: ExpansionConfig) -> None:
    narrow = replace(config, network=replace(config.network, server_up_bits_per_s=8e6))
    seconds = {("ann", name): ComputeTimes(learn_s=(1.0,)) for name in ("hat", "label-only")}
    alone = simulate_round(task("ann"), seconds, narrow)
    others = [e for e in task("ann", "label-only") if e.method]
    beside = simulate_round([*task("ann"), *others], seconds, narrow)
    assert beside.finish_s["ann", "hat"] == alone.finish_s["ann", "hat"]
    assert beside.entry_s[: len(alone.entry_s)] == alone.entry_s


def test_devices_of_one_method_share_the_server(config: ExpansionConfig) -> None:
    narrow = replace(config, network=replace(config.network, server_up_bits_per_s=8e6))
    alone = simulate_round(task("ann"), {}, narrow)
    beside = simulate_round([*task("ann"), *task("ben")], {}, narrow)
    # Both fetch at once at half the pace: each of the two bases takes 0.1 s more.
    assert alone.entry_s[3] == pytest.approx(0.2)
    assert beside.entry_s[3] == pytest.approx(0.3)


def test_what_is_lost_has_no_time_and_is_waited_for(config: ExpansionConfig) -> None:
    entries = [
        *task("ann"),
        sent("ben", "profile", 1, method=""),
        sent("ben", "profile", 0, method="", up=True, outcome="lost"),
    ]
    times = simulate_round(entries, {}, config)
    assert times.entry_s[-1] is None
    patience_s = config.network.patience_s
    assert times.finish_s["ann", "hat"] == pytest.approx(sum(WAY_S) + patience_s)
    assert times.finish_s["ben", "hat"] == pytest.approx(DOWN_S)


def test_several_tasks_of_a_round_follow_each_other(config: ExpansionConfig) -> None:
    """As FedAvg's: three times a request down, a model up, a report."""
    one = [
        sent("ann", "ship", 1),
        sent("ann", "register", 200, up=True, depot=True),
        sent("ann", "report", 1, up=True),
    ]
    seconds = {("ann", "hat"): ComputeTimes(learn_s=(5.0, 6.0, 7.0))}
    times = simulate_round(one * 3, seconds, config)
    assert times.compute_s["ann", "hat"] == 18.0
    assert times.finish_s["ann", "hat"] == pytest.approx(18.0 + 3 * (DOWN_S + 0.5 + UP_S))


def test_stragglers_compute_slower_and_transfer_alike(config: ExpansionConfig) -> None:
    network = replace(config.network, straggler_fraction=1.0, straggler_slowdown=3.0)
    seconds = {("ann", "hat"): ComputeTimes(probe_s=2.0, learn_s=(30.0,))}
    times = simulate_round(task("ann"), seconds, replace(config, network=network))
    assert times.compute_s["ann", "hat"] == 90.0
    assert times.finish_s["ann", "hat"] == pytest.approx(sum(WAY_S) + 96.0)
    assert times.entry_s == pytest.approx(WAY_S)


def test_devices_that_come_and_go_take_longer(config: ExpansionConfig) -> None:
    network = replace(config.network, mean_on_s=1.0, mean_off_s=5.0)
    seconds = {("ann", "hat"): ComputeTimes(learn_s=(30.0,))}
    always = simulate_round(task("ann"), seconds, config)
    away = simulate_round(task("ann"), seconds, replace(config, network=network))
    assert away.makespan_s["hat"] > always.makespan_s["hat"] + 30.0
    assert simulate_round(task("ann"), seconds, replace(config, network=network)) == away


@settings(max_examples=20, deadline=None)
@given(st.randoms())
def test_the_order_of_the_entries_does_not_matter(
    config: ExpansionConfig, chance: random.Random
) -> None:
    network = replace(config.network, mean_off_s=2.0, mean_on_s=3.0, server_up_bits_per_s=9e6)
    changed = replace(config, network=network)
    entries = [e for d in ("ann", "ben", "cid") for e in task(d)]
    seconds = {(d, "hat"): ComputeTimes(learn_s=(1.0,)) for d in ("ann", "ben", "cid")}

    def told(request: Sequence[LedgerEntry]) -> list[object]:
        times = simulate_round(request, seconds, changed)
        pairs = zip(map(canonical_key, request), times.entry_s, strict=True)
        return [sorted(pairs, key=repr), times.finish_s, times.makespan_s]

    before = told(entries)
    chance.shuffle(entries)
    assert told(entries) == before


def test_a_real_round_is_timed_from_its_orders_answers_and_ledger() -> None:
    """Two methods, two initial domains, two target domains, over the edge in this process."""
    config = ExpansionConfig(
        method="graft",
        comparisons=("label-only",),
        world=WorldConfig(domains=4, windows_per_domain=40),
        split=SplitConfig(initial_fraction=0.5),
        devices=DeviceConfig(architectures=("cnn-small",)),
        training=TrainingConfig(max_steps=2),
    )
    world = ImuWorld(4, 40, seed=0)
    entries: list[LedgerEntry] = []
    clock = SimulatedClock(config, world.task)
    devices = world_devices(world, config, world_store(world), entries.append)
    edge = clock.watch(
        LocalEdge("run", world.domain_ids, devices, entries.append), "run", entries.append
    )
    trained = train_initial_domains(world.domain_ids[:2], edge, SIGNER.sign)
    rows, timed = clock.time_round([result_row(r) for r in trained.reports], entries)
    assert len(timed) == len(entries)
    assert all(entry.simulated_s is not None for entry in timed)
    _check_rows(rows)
    entries.clear()
    expanded = expand_system(trained.state, world.domain_ids[2:], edge, SIGNER.sign, config)
    rows, timed = clock.time_round([result_row(r) for r in expanded.reports], entries)
    _check_rows(rows)
    # graft probes, fetches and registers; label-only does none of it.
    for domain_id in world.domain_ids[2:]:
        by_method = {row.method: row for row in rows if row.domain_id == domain_id}
        graft, alone = by_method["graft"].simulated_s, by_method["label-only"].simulated_s
        assert graft is not None
        assert alone is not None
        assert graft > alone
    # What was noted of a round is forgotten.
    again, _ = clock.time_round(rows, entries)
    assert {row.simulated_compute_s for row in again} == {None}


def test_a_second_probe_is_computed_as_well() -> None:
    config = ExpansionConfig(method="hat", comparisons=())
    task = ImuWorld(2, 40, seed=0).task
    request = ProbeRequest(
        domain_id="ann", round_index=1, method="hat", candidates=(), coarse_distances=()
    )
    profile = DomainProfile(
        domain_id="ann", task=task.name, num_samples=28, statistics_D=np.zeros(2, np.float32),
        class_counts_C=None,
    )  # fmt: skip
    card = ModelCard(
        model_id="a" * 64, domain_id="ben", architecture="cnn-small", payload_bytes=1, base_bytes=1,
        residual_bytes=1, class_mask_C=np.ones(task.num_classes, np.bool_), round_index=0,
    )  # fmt: skip
    chosen = Selection(domain_id="ann", candidates=(), chosen=())

    def probe_seconds(*offered: int) -> float:
        costs = _Costs(config, task)
        costs.note(ProfileRequest(domain_id="ann", round_index=1), profile)
        for count in offered:
            probe = replace(request, candidates=(card,) * count, coarse_distances=(0.0,) * count)
            costs.note(probe, chosen)
        return costs.take_seconds()["ann", "hat"].probe_s

    assert probe_seconds(2, 1) == pytest.approx(probe_seconds(3))
    assert probe_seconds(2, 1) > probe_seconds(2) > 0


def _check_rows(rows: Sequence[ResultRow]) -> None:
    for row in rows:
        assert row.error is None
        assert row.link_class is not None
        assert row.simulated_compute_s is not None
        assert row.simulated_s is not None
        assert row.simulated_s > row.simulated_compute_s > 0
