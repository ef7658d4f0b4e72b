"""The scale benchmark's own arithmetic: phases from a run's news, ratios within a repeat, data."""

import sys
from pathlib import Path

import numpy as np
import pytest

from graft.core.config import ExpansionConfig, SplitConfig
from graft.core.config_files import with_settings
from graft.data.folder import FolderWorld
from graft.data.splits import schedule_rounds, split_rows
from graft.errors import RunError

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "scale"


@pytest.fixture(scope="module")
def modules():
    """The benchmark's modules, which stand beside their script and in no package."""
    places = [str(BENCHMARK), str(BENCHMARK.parent), str(BENCHMARK / "peers")]
    sys.path[:0] = places
    import compare
    import graft_side
    import world

    yield compare, graft_side, world
    for place in places:
        sys.path.remove(place)
    for name in ("compare", "graft_side", "world", "summary", "install"):
        sys.modules.pop(name, None)


def test_phases_lie_between_the_news(modules):
    _, graft_side, _ = modules
    news = [
        (2.0, "round 0 join: 21 requests"),
        (5.0, "round 0 profile: 20 requests"),
        (6.0, "round 0 report: 20 requests"),
        (16.0, "round 1 profile: 1 request"),
        (17.0, "round 1 report: 1 request"),
        (17.5, "hash 0123"),
    ]
    phases = graft_side.read_phases(news, whole_s=18.0)
    seconds = (
        phases.start_s, phases.join_s, phases.profile_s, phases.training_s, phases.rest_s
    )  # fmt: skip
    assert seconds == (2.0, 3.0, 1.0, 10.0, 2.0)
    assert phases.whole_s == 18.0


def test_a_missing_phase_is_named(modules):
    _, graft_side, _ = modules
    with pytest.raises(RunError, match="report"):
        graft_side.read_phases(
            [(1.0, "round 0 join: 2 requests"), (2.0, "round 0 profile: 2 requests")], 3
        )


def test_a_ratio_is_the_median_of_ratios_within_a_repeat(modules):
    compare, _, _ = modules

    def speeds(*values: float):
        return _speeds(compare, *values)

    # The machine slows down by half and more, both sides alike: 8/2, 4/1 and 10/2 have median 4.
    figures = compare.summarise(
        {"block": speeds(8, 4, 10), "flower": speeds(2, 1, 2)}, 20, "cnn-small", "command"
    )
    ratio = figures["cnn-small/20-domains/block-over-flower/training"]
    assert (ratio["value"], ratio["target"]) == (4.0, ">= 6")
    assert figures["cnn-small/20-domains/block-over-flower/peak_memory"]["value"] == 1.0


def test_the_trainer_alone_is_held_against_the_peers_and_not_against_engines(modules):
    compare, _, _ = modules
    sides = {"block": 10, "flower": 1, "graft-trainer": 18, "fedjax": 6}
    measured = {name: _speeds(compare, speed) for name, speed in sides.items()}
    figures = compare.summarise(measured, 20, "cnn-small", "command")
    ratios = {
        name.split("/")[2]: (figure["value"], figure["target"])
        for name, figure in figures.items()
        if "-over-" in name and name.endswith("/training")
    }
    assert ratios == {
        "block-over-flower": (10.0, ">= 6"),
        "block-over-fedjax": (1.6667, ">= 2"),
        "graft-trainer-over-fedjax": (3.0, ">= 2"),
    }


def _speeds(compare, *values: float):
    return [
        compare.Measurement(training_per_s=v, whole_per_s=v / 2, peak_memory_bytes=10**9)
        for v in values
    ]


def test_every_initial_domain_trains_on_exactly_256_windows(modules, tmp_path):
    _, graft_side, world_module = modules
    world_module.write_world(tmp_path, 3, seed=0)
    world = FolderWorld(tmp_path)
    for domain_id in world.domain_ids:
        data = world.load(domain_id)
        split = split_rows(data, SplitConfig(), seed=0)
        assert len(split.train_N) == 256
        assert (np.bincount(data.y_N[split.train_N]) == 32).all()
    command = graft_side.graft_command("block", "mlp", tmp_path, 3, tmp_path / "out", 2)
    share = next(part for part in command if part.startswith("split.initial_fraction="))
    config = with_settings(
        ExpansionConfig(), {"split.initial_fraction": float(share.split("=")[1])}
    )
    initial_domains, targets = schedule_rounds(world, config.split, 1, seed=0)
    assert (len(initial_domains), len(targets)) == (3, 1)
