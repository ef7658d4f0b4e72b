"""The statistics that leave a domain, by hand, and what its policy keeps back."""

import numpy as np
import pytest
from fakes import site_policy

from graft.core.tasks import Task
from graft.privacy import class_centroids, profile_domain
from graft.privacy.profiling import image_statistics, window_statistics

TASK = Task(name="w", modality="imu", sample_shape=(1, 64), classes=("a", "b", "c"))
STEPS = 64
NAMES = ("mean", "std", "min", "max", "mean|x|", "mean|dx|", "low", "high")


def statistics_of(wave: np.ndarray) -> dict[str, float]:  # type: ignore[type-arg]
    (row,) = window_statistics(wave.astype(np.float32)[None, None])
    return dict(zip(NAMES, row, strict=True))


def test_a_constant_has_a_level_and_nothing_else() -> None:
    told = statistics_of(np.full(STEPS, -3.0))
    assert told == {
        "mean": -3, "std": 0, "min": -3, "max": -3, "mean|x|": 3, "mean|dx|": 0,
        "low": 0, "high": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("cycles", "band", "other"), [(4, "low", "high"), (12, "high", "low")])
def test_a_sine_has_its_known_deviation_and_power_in_one_band(
    cycles: int, band: str, other: str
) -> None:
    # The spectrum has 33 bins, of which the first 33 // 4 = 8 are the low band.
    told = statistics_of(2 * np.sin(2 * np.pi * cycles * np.arange(STEPS) / STEPS))
    assert told["mean"] == pytest.approx(0, abs=1e-6)
    assert told["std"] == pytest.approx(2 / np.sqrt(2), rel=1e-6)
    assert (told["min"], told["max"]) == (pytest.approx(-2, rel=1e-6), pytest.approx(2, rel=1e-6))
    # |X_k|^2 / T = (A T / 2)^2 / T = A^2 T / 4 = 64.
    assert told[band] == pytest.approx(np.log1p(64), rel=1e-6)
    assert told[other] == pytest.approx(0, abs=1e-6)


def test_a_sawtooth_has_its_known_steps() -> None:
    told = statistics_of(np.arange(STEPS) % 2 * 1.0)  # 0, 1, 0, 1, ...
    assert (told["mean"], told["mean|x|"], told["mean|dx|"]) == (0.5, 0.5, 1.0)


def test_channels_are_told_apart() -> None:
    x = np.zeros((1, 2, STEPS), np.float32)
    x[0, 1] = 5
    (row,) = window_statistics(x)
    assert row.shape == (8 * 2,)
    assert row[:2].tolist() == [0, 5]  # the means of both channels stand first


@pytest.mark.parametrize(
    ("axis", "sign", "direction"),
    # The angle atan2(rows, columns) + pi, in eighths of a turn: to the right is half a turn,
    # downwards three quarters, upwards one quarter.
    [(1, 1, 4), (0, 1, 6), (0, -1, 2)],
)
def test_a_ramp_has_one_direction(axis: int, sign: int, direction: int) -> None:
    ramp = np.linspace(0, 1, 8) * sign
    image = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, (8, 8))
    (row,) = image_statistics(image[None, None].astype(np.float32))
    assert row[0] == pytest.approx(sign / 2)
    assert row[1] == pytest.approx(np.std(ramp), rel=1e-6)
    np.testing.assert_allclose(row[2:], np.eye(8)[direction], atol=1e-9)


def test_a_flat_image_has_no_direction() -> None:
    (row,) = image_statistics(np.full((1, 3, 8, 8), 0.5, np.float32))
    np.testing.assert_allclose(row, [0.5] * 3 + [0] * 3 + [0] * 8, atol=1e-9)


def test_a_profile_is_the_mean_and_deviation_over_the_samples() -> None:
    x = np.stack([np.full((1, STEPS), level, np.float32) for level in (1.0, 3.0)])
    profile = profile_domain("ann", TASK, x, np.array([0, 1]), site_policy(min_class_count=1))
    assert (profile.domain_id, profile.task, profile.num_samples) == ("ann", "w", 2)
    assert profile.statistics_D.dtype == np.float32
    # Means, then deviations, of the eight numbers: levels 1 and 3 have mean 2, deviation 1.
    np.testing.assert_allclose(profile.statistics_D[:8], [2, 0, 2, 2, 2, 0, 0, 0])
    np.testing.assert_allclose(profile.statistics_D[8:], [1, 0, 1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize(
    ("labels", "counts"),
    [
        ([0, 0, 0, 1, 1, 1, 1], [3, 4, 0]),  # an absent class gives nobody away
        ([0, 0, 0, 1, 1], None),  # two rows of class 1 would: all counts are withheld
    ],
)
def test_class_counts_below_the_policy_are_withheld_as_a_whole(
    labels: list[int], counts: list[int] | None
) -> None:
    x = np.zeros((len(labels), 1, STEPS), np.float32)
    profile = profile_domain("ann", TASK, x, np.array(labels), site_policy(min_class_count=3))
    got = profile.class_counts_C
    assert (None if got is None else got.tolist()) == counts


def test_the_centroid_of_a_class_is_its_mean_or_withheld() -> None:
    features_NF = np.array([[1, 0], [3, 2], [9, 9], [5, 5], [7, 5]], np.float32)
    centroids_CF = class_centroids(
        "ann's", (), features_NF, np.array([0, 0, 1, 2, 2]), 4, site_policy(min_class_count=2)
    )
    # One row of class 1 would be that row itself; class 3 has none.
    np.testing.assert_array_equal(centroids_CF, [[2, 1], [0, 0], [6, 5], [0, 0]])
    assert centroids_CF.dtype == np.float32
