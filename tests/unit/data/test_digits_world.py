"""Laws of the embedded image world."""

import numpy as np
import pytest

from graft.core.config import SplitConfig, WorldConfig
from graft.data.domain import World
from graft.data.splits import split_rows
from graft.data.synthetic.digits import MAX_DOMAINS, NUM_IMAGES, DigitsWorld
from graft.data.worlds import open_world
from graft.errors import ConfigError, DatasetFormatError


@pytest.mark.parametrize("num_domains", [2, 12, MAX_DOMAINS])
def test_every_domain_can_be_split_and_knows_every_class(num_domains: int) -> None:
    world: World = DigitsWorld(num_domains, NUM_IMAGES, 0)
    assert len(world.domain_ids) == num_domains
    for domain_id in world.domain_ids:
        data = world.load(domain_id)
        assert data.x.shape == (NUM_IMAGES // num_domains, *world.task.sample_shape)
        assert data.x.dtype == np.float32
        assert np.isfinite(data.x).all()
        assert set(data.y_N) == set(range(10))
        assert set(data.y_N[split_rows(data, SplitConfig(), 0).test_N]) == set(range(10))
        assert world.person(domain_id) == domain_id


def test_no_image_belongs_to_two_domains() -> None:
    world = DigitsWorld(15, NUM_IMAGES, 0)
    rows = np.concatenate(world._rows)
    assert len(set(rows)) == len(rows) == 15 * (NUM_IMAGES // 15)


def test_a_domain_holds_no_more_images_than_asked_for() -> None:
    assert len(DigitsWorld(5, 100, 0).load("camera-04").y_N) == 100


def test_equal_seeds_give_equal_domains_and_others_differ() -> None:
    first, second, other = (DigitsWorld(5, 100, seed).load("camera-00").x for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_domains_see_with_their_own_brightness() -> None:
    world = DigitsWorld(12, 100, 0)
    means = [float(world.load(domain_id).x.mean()) for domain_id in world.domain_ids]
    # Dark ink on light and light on dark lie far apart: some of each among twelve.
    assert max(means) - min(means) > 0.3


@pytest.mark.parametrize("num_domains", [1, MAX_DOMAINS + 1])
def test_too_few_and_too_many_domains_are_refused(num_domains: int) -> None:
    with pytest.raises(ConfigError, match="wanted 2 to 40"):
        DigitsWorld(num_domains, 100, 0)


def test_the_configuration_opens_it() -> None:
    world = open_world(WorldConfig(kind="digits", domains=4), seed=0)
    assert world.task.modality == "image"
    with pytest.raises(DatasetFormatError, match="domain id"):
        world.load("camera-04")
