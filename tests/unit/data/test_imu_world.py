"""Laws of the embedded IMU world and of opening worlds."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import site_policy

from graft.core.config import SplitConfig, WorldConfig
from graft.data.dataset_table import write_dataset
from graft.data.domain import World
from graft.data.folder import FolderWorld, write_domain
from graft.data.splits import split_rows
from graft.data.synthetic.imu import CHANNELS, NUM_CLUSTERS, RATE_HZ, ImuWorld
from graft.data.worlds import open_world
from graft.errors import ConfigError, DatasetFormatError
from graft.models import Network, build_network
from graft.privacy import profile_domain
from graft.selection import profile_distances


def test_every_domain_has_the_shape_of_the_task() -> None:
    world: World = ImuWorld(50, 160, 0)
    assert isinstance(world.domain_ids, Sequence)
    assert len(world.domain_ids) == 50
    for domain_id in world.domain_ids[:8]:
        data = world.load(domain_id)
        assert data.x.shape == (160, *world.task.sample_shape)
        assert (data.x.dtype, data.y_N.dtype) == (np.float32, np.int64)
        assert np.isfinite(data.x).all()
        assert set(data.y_N) <= set(range(world.task.num_classes))
        assert len(set(data.y_N)) >= world.task.num_classes - 2
        assert world.person(domain_id) == domain_id


def test_a_domain_depends_on_seed_and_id_and_not_on_the_size_of_the_world() -> None:
    small, large, other = ImuWorld(4, 40, 0), ImuWorld(100_000, 40, 0), ImuWorld(4, 40, 1)
    first = small.load("user-000003")
    np.testing.assert_array_equal(first.x, large.load("user-000003").x)
    assert not np.array_equal(first.x, other.load("user-000003").x)
    assert not np.array_equal(first.x, small.load("user-000002").x)


def test_a_hundred_thousand_domains_cost_nothing_until_one_is_loaded() -> None:
    started_s = time.perf_counter()
    world = ImuWorld(100_000, 160, 0)
    assert world.domain_ids[-1] == "user-099999"
    assert "user-099999" in world.domain_ids
    world.load("user-099999")
    # Materialising would take minutes; one domain takes milliseconds.
    assert time.perf_counter() - started_s < 2


@pytest.mark.parametrize("domain_id", ["user-000004", "user-4", "user--00001", "ann", ""])
def test_an_unknown_domain_is_refused(domain_id: str) -> None:
    with pytest.raises(DatasetFormatError, match="domain id"):
        ImuWorld(4, 40, 0).load(domain_id)


@pytest.mark.parametrize("num_windows", [20, 64, 160, 400])
def test_segments_hold_one_activity_and_every_activity_is_tested(num_windows: int) -> None:
    world = ImuWorld(12, num_windows, 0)
    for domain_id in world.domain_ids:
        data = world.load(domain_id)
        assert (np.diff(data.group_N) >= 0).all()
        for group in np.unique(data.group_N):
            assert len(set(data.y_N[data.group_N == group])) == 1
        split = split_rows(data, SplitConfig(), 0)
        if num_windows >= 64:
            assert set(data.y_N[split.test_N]) == set(data.y_N)
            assert 0.15 < len(split.test_N) / num_windows < 0.4


def test_profiles_point_to_the_own_cluster_but_do_not_give_it_away() -> None:
    world = ImuWorld(60, 160, 0)
    statistics = []
    for domain_id in world.domain_ids:
        data = world.load(domain_id)
        profile = profile_domain(domain_id, world.task, data.x, data.y_N, site_policy())
        statistics.append(profile.statistics_D)
    statistics_SD = np.stack(statistics)
    clusters = np.array([world.cluster(domain_id) for domain_id in world.domain_ids])
    hits = []
    for place in range(60):
        distance_S = profile_distances(statistics_SD[place], statistics_SD)
        nearest = np.argsort(distance_S)[1:6]
        hits.append((clusters[nearest] == clusters[place]).mean())
    # Chance is one in six.
    assert 2 / NUM_CLUSTERS < np.mean(hits) < 0.9


def fit(world: World, domain_ids: Sequence[str]) -> list[Network]:
    networks = []
    for domain_id in domain_ids:
        data = world.load(domain_id)
        rows = split_rows(data, SplitConfig(), 0).train_N
        x, y = torch.from_numpy(data.x[rows]), torch.from_numpy(data.y_N[rows])
        network = build_network("cnn-small", world.task, seed=0).train()
        optimiser = torch.optim.Adam(network.parameters(), 3e-3)
        rng = np.random.default_rng(0)
        for _ in range(80):
            batch = rng.permutation(len(y))[:32]
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimiser.step()
        networks.append(network.eval())
    return networks


def test_the_own_model_beats_one_of_the_cluster_which_beats_one_of_another() -> None:
    world = ImuWorld(100, 160, 0)
    home = [d for d in world.domain_ids if world.cluster(d) == 0][:4]
    away = [d for d in world.domain_ids if world.cluster(d) == 1][:3]
    networks = fit(world, [*home, *away])
    own, near, far = [], [], []
    for place, domain_id in enumerate(home):
        data = world.load(domain_id)
        rows = split_rows(data, SplitConfig(), 0).test_N
        with torch.no_grad():
            x = torch.from_numpy(data.x[rows])
            accuracy = [(n(x).argmax(1).numpy() == data.y_N[rows]).mean() for n in networks]
        own.append(accuracy[place])
        near += [accuracy[other] for other in range(len(home)) if other != place]
        far += accuracy[len(home) :]
    # The world is tuned to about 0.89, 0.64 and 0.28 (24 domains, three seeds).
    assert np.mean(own) > 0.75
    assert np.mean(own) > np.mean(near) + 0.1
    assert np.mean(near) > np.mean(far) + 0.15


def test_the_world_goes_through_a_folder_unchanged(tmp_path: Path) -> None:
    world = ImuWorld(3, 20, 0)
    write_dataset(tmp_path, world.task, channels=CHANNELS, rate_hz=RATE_HZ, licence="CC0-1.0")
    for domain_id in world.domain_ids:
        write_domain(tmp_path, world.load(domain_id))
    opened = open_world(WorldConfig(kind="folder", path=str(tmp_path)), seed=0)
    assert isinstance(opened, FolderWorld)
    assert opened.task == world.task
    assert list(opened.domain_ids) == list(world.domain_ids)
    for domain_id in world.domain_ids:
        np.testing.assert_array_equal(opened.load(domain_id).x, world.load(domain_id).x)


def test_fewer_domains_are_part_of_more() -> None:
    parts = [
        set(open_world(WorldConfig(domains=50, max_domains=most), seed=3).domain_ids)
        for most in (5, 10, 50, 80)
    ]
    assert [len(part) for part in parts] == [5, 10, 50, 50]
    assert parts[0] < parts[1] < parts[2] == parts[3]
    other = open_world(WorldConfig(domains=50, max_domains=5), seed=4)
    assert set(other.domain_ids) != parts[0]
    assert other.load(other.domain_ids[0]).domain_id == other.domain_ids[0]
    with pytest.raises(ConfigError, match="max_domains"):
        open_world(WorldConfig(max_domains=1), seed=0)
