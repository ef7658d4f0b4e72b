"""A growth round: domains of the system come back with new classes and keep the old ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from graft_server.observability.progress import RoundProgress
from graft_server.round_loop import RunSettings
from graft_server.run_folder import RunFolder
from graft_simulation.block.engine import run_block_engine
from graft_simulation.clock.simulated_clock import SimulatedClock
from small_system import CONFIG, WORLD, System
from torch import nn

from graft.core.config import ExpansionConfig, GrowthConfig, TrainingConfig
from graft.core.exchange import Growth, TrainRequest, TrainResult
from graft.core.records import SystemState
from graft.core.results import ResultRow
from graft.core.tables import read_results
from graft.data.splits import schedule_growth
from graft.data.worlds import open_world
from graft.errors import ConfigError
from graft.lifelong.growth import METHODS, GrowthTask, grow_classes
from graft.models import Network
from graft.report.growth import summarise_growth
from graft.report.page.report import report_page
from graft.report.run import read_run
from graft.report.summary import summarise, summarise_rounds
from graft.rounds import Round, grow_domains
from graft.training import predict_in_batches

GROWING = ("walk", "sit")
GROWTH = GrowthConfig(classes=GROWING, round=1, comparisons=("naive",))
GROWS = replace(CONFIG, method="graft", comparisons=("label-only",), growth=GROWTH, rounds=2)
KNOWN_C = ~np.isin(WORLD.task.classes, GROWING)


@pytest.fixture(scope="module")
def before() -> tuple[System, SystemState]:
    system = System(config=GROWS)
    return system, system.found().state


def grown(system: System, state: SystemState, *growths: Growth) -> Round:
    return grow_domains(state, growths, system.edge(), system.admit, system.config)


def test_before_growth_no_domain_has_rows_of_the_growing_classes(
    before: tuple[System, SystemState],
) -> None:
    for card in before[1].catalogue:
        assert not card.class_mask_C[~KNOWN_C].any()
        assert card.profile is not None
        assert card.profile.class_counts_C is not None
        assert card.profile.class_counts_C[KNOWN_C].any()
        assert not card.profile.class_counts_C[~KNOWN_C].any()


def test_a_grown_model_joins_the_catalogue_with_its_former_self_as_parent(
    before: tuple[System, SystemState],
) -> None:
    system, state = before
    former = state.catalogue[0]
    own = Growth(domain_id=former.domain_id, classes=GROWING)
    after = grown(System(config=GROWS, store=system.store), state, own)
    assert not after.failures
    assert after.state.round_index == 2
    new = after.state.catalogue[-1]
    assert (new.domain_id, new.parents, new.round_index) == (
        former.domain_id,
        (former.model_id,),
        1,
    )
    assert new.architecture == former.architecture
    assert new.model_id != former.model_id
    assert new.class_mask_C[~KNOWN_C].all()
    assert (former.class_mask_C <= new.class_mask_C).all()
    assert new.profile is not None
    assert new.profile.class_counts_C is not None
    assert new.profile.class_counts_C[~KNOWN_C].any()  # later targets are matched by what it has
    assert former in after.state.catalogue
    assert former in after.state.owned
    assert former not in after.state.latest
    assert new in after.state.latest


def test_later_targets_learn_from_the_grown_model_and_not_from_the_former(
    before: tuple[System, SystemState],
) -> None:
    first, state = before
    system = System(config=GROWS, store=first.store)
    growths = [Growth(domain_id=c.domain_id, classes=GROWING) for c in state.catalogue]
    after = grown(system, state, *growths)
    system.requests.clear()
    done = system.expand(after.state, tuple(WORLD.domain_ids[3:4]))
    offered = {
        card.model_id
        for request in system.requests
        if isinstance(request, TrainRequest)
        for card in request.sources
    }
    assert offered
    assert offered <= {card.model_id for card in after.state.catalogue[-3:]}
    assert done.state.catalogue[-1].class_mask_C[~KNOWN_C].any()


def test_the_ledger_has_the_bytes_of_a_growth_round(before: tuple[System, SystemState]) -> None:
    first, state = before
    system, former = System(config=GROWS, store=first.store), state.catalogue[0]
    grown(system, state, Growth(domain_id=former.domain_id, classes=GROWING))
    own = [entry for entry in system.entries if entry.method == "grow-had"]
    phases = {(entry.phase, entry.sender == former.domain_id) for entry in own}
    assert phases == {
        ("grow", False), ("grow", True), ("ship", False), ("register", True), ("acknowledge", False)
    }  # fmt: skip
    shipped = sum(entry.payload_bytes for entry in own if entry.phase == "ship")
    assert shipped == former.shipped_bytes
    naive = [entry for entry in system.entries if entry.method == "grow-naive"]
    assert not [entry for entry in naive if entry.phase == "register"]


def test_what_cannot_grow_is_the_failure_of_its_domain_alone(
    before: tuple[System, SystemState],
) -> None:
    first, state = before
    names = [card.domain_id for card in state.catalogue]
    known = np.array(WORLD.task.classes)[state.catalogue[1].class_mask_C][0]
    after = grown(
        System(config=GROWS, store=first.store),
        state,
        Growth(domain_id=names[0], classes=GROWING),
        Growth(domain_id=names[1], classes=(str(known),)),
        Growth(domain_id=names[2], classes=("fly",)),
        Growth(domain_id=WORLD.domain_ids[5], classes=GROWING),
    )
    errors = {(failure.domain_id, failure.error) for failure in after.failures}
    assert errors == {
        (names[1], "ConfigError"),
        (names[2], "ConfigError"),
        (WORLD.domain_ids[5], "ModelMissingError"),
    }
    assert [card.domain_id for card in after.state.catalogue[3:]] == names[:1]


def test_a_grown_model_of_another_lineage_is_not_admitted(
    before: tuple[System, SystemState],
) -> None:
    first, state = before
    former = state.catalogue[0]

    def spoil(request: object, response: object) -> object:
        if isinstance(response, TrainResult) and response.card is not None:
            mask_C = response.card.class_mask_C & ~former.class_mask_C
            return replace(response, card=replace(response.card, class_mask_C=mask_C))
        return response

    system = System(config=GROWS, store=first.store, change=spoil)  # type: ignore[arg-type]
    after = grown(system, state, Growth(domain_id=former.domain_id, classes=GROWING))
    assert [(each.method, each.error) for each in after.failures] == [("grow-had", "EdgeError")]
    assert after.state.catalogue == state.catalogue


def small_run(folder: Path, config: ExpansionConfig = GROWS) -> RunSettings:
    config = replace(config, world=replace(config.world, domains=6, windows_per_domain=40))
    settings = RunSettings(
        config=config,
        world=open_world(config.world, config.seed),
        folder=RunFolder(folder),
        clock=SimulatedClock(config, WORLD.task),
    )
    settings.folder.begin(config, settings.world)
    return settings


def stop_in_growth(now: RoundProgress) -> None:
    if (now.phase, now.done) == ("grow", now.wanted):
        raise KeyboardInterrupt


def test_a_run_that_was_cut_in_its_growth_round_ends_with_the_same_hash(tmp_path: Path) -> None:
    whole, cut = small_run(tmp_path / "whole" / "run"), small_run(tmp_path / "cut" / "run")
    digest = run_block_engine(whole, workers=0, stacked=False)
    with pytest.raises(KeyboardInterrupt):
        run_block_engine(replace(cut, on_progress=stop_in_growth), workers=0, stacked=False)
    assert cut.folder.count_rounds() == 1
    resumed = replace(cut, clock=SimulatedClock(cut.config, WORLD.task))
    assert run_block_engine(resumed, workers=0, stacked=False) == digest
    rows = read_results(whole.folder.path / "results.parquet")
    check_rows(rows)
    check_report(whole.folder.path, rows)


def check_rows(rows: list[ResultRow]) -> None:
    growth = [row for row in rows if row.is_growth]
    assert {row.method for row in growth} == {"grow-had", "grow-naive"}
    assert {row.round_index for row in growth} == {1}
    for row in growth:
        assert row.error is None
        assert row.simulated_s is not None
        assert None not in (row.old_accuracy_before, row.old_accuracy)
        assert (row.model_id is None) == (row.method == "grow-naive")
    assert all(row.old_accuracy is None for row in rows if not row.is_growth)


def check_report(folder: Path, rows: list[ResultRow]) -> None:
    run = read_run(folder)
    ways = summarise_growth(run.rows, run.ledger)
    assert [each.way for each in ways] == ["had", "naive"]
    assert ways[0].bytes_up > ways[1].bytes_up > 0
    assert ways[0].bytes_down > 0
    # Domains that come back are no targets of the methods.
    targets = {r.domain_id for r in rows if r.round_index == 1 and not r.is_growth}
    assert next(each.wanted for each in summarise_rounds(run.rows, run.config)) == len(targets)
    assert {each.method for each in summarise(run.rows, run.ledger, run.config)} == {
        "graft", "label-only"
    }  # fmt: skip
    assert "Growth, HAD-style" in report_page(run)


def test_the_schedule_draws_domains_of_earlier_rounds() -> None:
    rounds = (("a", "b", "c"), ("d",), ("e",))
    config = GrowthConfig(classes=("x",), round=2, fraction=0.5)
    ((index, growths),) = schedule_growth(rounds, config, seed=3).items()
    assert index == 2
    assert len(growths) == 2
    assert {each.domain_id for each in growths} <= {"a", "b", "c", "d"}
    assert schedule_growth(rounds, config, seed=3) == {2: growths}
    assert not schedule_growth(rounds, GrowthConfig(), seed=3)
    with pytest.raises(ConfigError, match=r"growth\.round"):
        schedule_growth(rounds, replace(config, round=3), seed=3)


def test_an_unknown_growing_class_ends_a_run_at_its_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fly"):
        small_run(tmp_path / "run", replace(GROWS, growth=replace(GROWTH, classes=("fly",))))


# --- the ways of keeping old classes --------------------------------------------------------------


def blobs(labels: list[int], count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples (N, 1, 8) around a centre a class."""
    generator = torch.Generator().manual_seed(seed)
    centre = 1.5 * torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    y_N = torch.tensor(labels).repeat_interleave(count)
    x_N = centre[y_N] + 0.5 * torch.randn(len(y_N), 8, generator=generator)
    return x_N[:, None], y_N


def blob_network() -> Network:
    """A network that knows classes 0 and 1 of four."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(8, 16), nn.ReLU())
    network = Network(encoder, 16, 4)
    x_N, y_N = blobs([0, 1], 60, seed=2)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x_N), y_N).backward()
        optimiser.step()
    return network.eval()


def accuracy(network: Network, labels: list[int]) -> float:
    x_N, y_N = blobs(labels, 100, seed=9)
    return float((predict_in_batches(network, x_N).argmax(1) == y_N).double().mean())


def blob_growth(network: Network, num_unlabelled: int = 40) -> GrowthTask:
    x_L, y_L = blobs([2, 3], 15, seed=3)
    x_old, y_old = blobs([0, 1], 20, seed=4)
    return GrowthTask(
        network=network,
        old_C=np.array([True, True, False, False]),
        new_C=np.array([False, False, True, True]),
        x_L=x_L,
        y_L=y_L,
        x_U=blobs([0, 0, 0, 1, 1, 1, 2, 3], num_unlabelled, seed=5)[0],
        x_old=x_old,
        y_old=y_old,
        training=TrainingConfig(max_steps=200, learning_rate=1e-2),
        seed=7,
    )


def test_had_lwf_and_joint_keep_old_classes_and_learn_new_ones_where_naive_forgets() -> None:
    network = blob_network()
    parameters = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    before = accuracy(network, [0, 1])
    lost, new = {}, {}
    for way in METHODS:
        after = grow_classes(blob_growth(network), way)
        lost[way], new[way] = before - accuracy(after, [0, 1]), accuracy(after, [2, 3])
    assert lost["naive"] > 0.2
    assert max(lost[way] for way in ("had", "lwf", "joint")) <= 0.02
    # A quarter of the unlabelled rows are of new classes, and LwF takes their pseudo-labels for it.
    assert min(new["had"], new["joint"]) > 0.9 > new["lwf"]
    assert lost["ewc"] <= lost["naive"]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, parameters[name])  # the former model is not changed


def test_without_unlabelled_rows_the_old_output_is_kept_among_the_old_classes() -> None:
    network = blob_network()
    after = grow_classes(blob_growth(network, num_unlabelled=0), "had")
    x_N, y_N = blobs([0, 1], 100, seed=9)
    logits_NC = predict_in_batches(after, x_N)[:, :2]
    assert float((logits_NC.argmax(1) == y_N).double().mean()) > 0.95
    assert accuracy(after, [2, 3]) > 0.9
