"""MMD and Frechet's distance, against explicit sums and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.errors import DomainEmptyError, DomainShapeError, DomainValueError
from graft.selection.scores.distributions import (
    frechet_distance,
    mmd_distance,
    profile_frechet_distances,
)

seeds = st.integers(0, 10_000)


def test_mmd_is_the_kernel_sums_over_pairs() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(4, 3)), 1 + rng.normal(size=(5, 3))
    pooled = np.concatenate([source, target])
    median = np.median(
        [((pooled[i] - pooled[j]) ** 2).sum() for i in range(9) for j in range(i + 1, 9)]
    )

    def kernel(a: np.ndarray, b: np.ndarray, width: float) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / (width * median)))

    expected = 0.0
    for width in (0.25, 0.5, 1, 2, 4):
        within = np.mean([kernel(source[i], source[j], width) for i in range(4) for j in range(4)
                          if i != j])  # fmt: skip
        within += np.mean([kernel(target[i], target[j], width) for i in range(5) for j in range(5)
                           if i != j])  # fmt: skip
        across = np.mean([kernel(a, b, width) for a in source for b in target])
        expected += (within - 2 * across) / 5
    assert mmd_distance(source, target) == pytest.approx(expected)


def test_mmd_of_one_distribution_is_zero_on_average() -> None:
    # Unbiased: the mean of 100 estimates lies within four of its own standard errors.
    rng = np.random.default_rng(1)
    found = [mmd_distance(rng.normal(size=(8, 2)), rng.normal(size=(12, 2))) for _ in range(100)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(100)


def test_frechet_of_gaussians_is_the_closed_form() -> None:
    # Independent axes, means (3, 0) apart, deviations (1, 2) and (2, 2):
    # 9 + (1 - 2)^2 + (2 - 2)^2 = 10. 40,000 rows leave a per cent or so of noise.
    rng = np.random.default_rng(2)
    source = rng.normal(size=(40_000, 2)) * [1, 2]
    target = rng.normal(size=(40_000, 2)) * [2, 2] + [3, 0]
    assert frechet_distance(source, target) == pytest.approx(10, rel=0.02)


def test_frechet_knows_the_direction_of_the_spread() -> None:
    # Variances (4, 1) against (1, 4), rotated by a right angle, of equal means:
    # tr A + tr B - 2 tr (A B)^1/2 = 5 + 5 - 2 (2 + 2) = 2.
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(40_000, 2)) * [2, 1]
    assert frechet_distance(rows, rows[:, ::-1] - rows[:, ::-1].mean(0) + rows.mean(0)) == (
        pytest.approx(2, rel=0.02)
    )


def test_frechet_of_a_moved_sample_is_the_way_squared() -> None:
    rows = np.random.default_rng(4).normal(size=(6, 9))  # fewer rows than features
    assert frechet_distance(rows, rows + 2.0) == pytest.approx(9 * 4)
    assert frechet_distance(rows[:1], rows[:1] + 2.0) == pytest.approx(36)


@pytest.mark.parametrize("distance", [mmd_distance, frechet_distance])
@settings(deadline=None, max_examples=25)
@given(seed=seeds, rows=st.integers(2, 9), width=st.integers(1, 12))
def test_distances_are_symmetric_and_blind_to_order(
    distance, seed: int, rows: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(rows, width)), 2 * rng.normal(size=(rows + 1, width)) + 1
    found = distance(source, target)
    columns = rng.permutation(width)
    assert distance(target, source) == pytest.approx(found, rel=1e-6, abs=1e-9)
    assert distance(source[::-1][:, columns], target[:, columns]) == pytest.approx(
        found, rel=1e-6, abs=1e-9
    )


@pytest.mark.parametrize("distance", [mmd_distance, frechet_distance])
def test_farther_is_farther(distance) -> None:
    rng = np.random.default_rng(5)
    source, target = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    found = [distance(source, target + shift) for shift in (0, 0.5, 1, 2, 4)]
    assert found == sorted(found)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("distance", [mmd_distance, frechet_distance])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.zeros((3, 4)), np.zeros((3, 4))),
        (np.zeros((2, 1)), np.ones((2, 1))),
        (np.ones((9, 2)), np.r_[np.ones((8, 2)), [[1.0, 2.0]]]),  # a median of 0
        (np.eye(2, 60), np.eye(2, 60)[::-1]),
    ],
)
def test_degenerate_samples_give_a_number(distance, source: np.ndarray, target: np.ndarray) -> None:
    assert np.isfinite(distance(source, target))
    assert frechet_distance(source, source) == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_compared_is_refused() -> None:
    rows = np.zeros((3, 2))
    for distance in (mmd_distance, frechet_distance):
        with pytest.raises(DomainShapeError):
            distance(rows, np.zeros((3, 4)))
        with pytest.raises(DomainEmptyError):
            distance(rows, np.zeros((0, 2)))
        with pytest.raises(DomainValueError):
            distance(rows, np.full((2, 2), np.nan))
    with pytest.raises(DomainEmptyError, match="2 or more"):
        mmd_distance(rows, rows[:1])


def test_profile_distance_by_hand() -> None:
    # One statistic, (mean, deviation). Unit: mean deviation of the sources, (1 + 3) / 2 = 2.
    # From (0, 1): (4, 1) is 4 / 2 = 2 away; (0, 3) is 2 / 2 = 1 away.
    found = profile_frechet_distances([0.0, 1.0], [[4.0, 1.0], [0.0, 3.0]])
    np.testing.assert_allclose(found, [2, 1])


def test_profile_distance_is_frechets_of_independent_gaussians() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(50_000, 2)) * [1, 2], rng.normal(size=(50_000, 2)) * [2, 1] + [0, 1]
    profiles = [np.r_[each.mean(0), each.std(0)] for each in rows]
    unit = profiles[1][2:]  # the only source's own deviations
    expected = np.sqrt(frechet_distance(rows[0] / unit, rows[1] / unit) / 2)
    found = profile_frechet_distances(profiles[0], [profiles[1]])
    np.testing.assert_allclose(found, [expected], rtol=0.01)


@settings(deadline=None)
@given(seeds, st.floats(0.1, 100))
def test_profile_units_do_not_matter_and_oneself_is_nearest(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    sources = np.c_[rng.normal(size=(4, 3)), rng.uniform(0.5, 2, size=(4, 3))]
    found = profile_frechet_distances(sources[0], sources)
    assert found[0] == 0
    assert (found[1:] > 0).all()
    other = profile_frechet_distances(sources[0] * scale, sources * scale)
    np.testing.assert_allclose(other, found, rtol=1e-9)


def test_profiles_of_unlike_or_odd_length_are_refused() -> None:
    with pytest.raises(DomainShapeError):
        profile_frechet_distances([0.0, 1.0], [[0.0, 1.0, 2.0, 3.0]])
    with pytest.raises(DomainShapeError):
        profile_frechet_distances([0.0, 1.0, 2.0], [[0.0, 1.0, 2.0]])
