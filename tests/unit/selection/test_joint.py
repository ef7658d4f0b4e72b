"""Joint scores by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.selection import centroid_similarity, joint_scores, smoothed_accuracy

SCORES = st.lists(st.integers(-100, 100), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("score_mix", "expected"),
    # Similarities 0 and 1 are -1 and +1 deviations, accuracies 0.9 and 0.5 are +1 and -1.
    [(0.0, [-1, 1]), (1.0, [1, -1]), (0.5, [0, 0]), (0.25, [-0.5, 0.5])],
)
def test_scores_mix_deviations_from_the_mean(score_mix: float, expected: list[float]) -> None:
    np.testing.assert_allclose(
        joint_scores([0.0, 1.0], [0.9, 0.5], score_mix), expected, atol=1e-12
    )


@given(SCORES, st.floats(0.5, 20), st.floats(-5, 5))
def test_the_scale_of_a_score_does_not_matter(
    values: list[int], scale: float, shift: float
) -> None:
    scores_S = np.array(values, np.float64)
    zeros = [0.0] * len(values)
    np.testing.assert_allclose(
        joint_scores(list(scores_S * scale + shift), zeros, 0.3),
        joint_scores(list(scores_S), zeros, 0.3),
        atol=1e-9,
    )


def test_what_is_equal_everywhere_does_not_decide() -> None:
    np.testing.assert_array_equal(
        joint_scores([0.3, 0.3, 0.3], [0.1, 0.2, 0.3], 0.5),
        joint_scores([0.9, 0.9, 0.9], [0.1, 0.2, 0.3], 0.5),
    )
    np.testing.assert_array_equal(joint_scores([0.3], [0.4], 0.5), [0])


CENTROIDS_CF = np.array([[2, 0], [0, 0], [0, 3]], np.float32)  # class 1 is withheld


@pytest.mark.parametrize(
    ("feature", "similarity"),
    [
        ([2, 0], 1.0),  # at its centroid
        ([0, 0.1], 1.0),  # any length in its direction
        ([1, 1], np.sqrt(0.5)),  # halfway between two
        ([-1, 0], 0.0),  # opposite to one and square to the other
        ([0, 0], 0.0),
    ],
)
def test_similarity_is_the_best_cosine(feature: list[float], similarity: float) -> None:
    features_NF = np.array([feature], np.float32)
    assert centroid_similarity(features_NF, CENTROIDS_CF) == pytest.approx(similarity, abs=1e-6)


def test_similarity_is_a_mean_over_the_samples() -> None:
    features_NF = np.array([[2, 0], [-1, 0]], np.float32)
    assert centroid_similarity(features_NF, CENTROIDS_CF) == pytest.approx(0.5)


def test_withheld_centroids_say_nothing() -> None:
    features_NF = np.ones((3, 2), np.float32)
    assert centroid_similarity(features_NF, None) == 0
    assert centroid_similarity(features_NF, np.zeros_like(CENTROIDS_CF)) == 0


PROBABILITIES_LC = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.3, 0.2]], np.float32)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        # All known: 0, 1, 0 are predicted for 0, 1, 1. Two are right: (2 + 1) / (3 + 3).
        ([True, True, True], 3 / 6),
        # Without class 0: 1, 1, 1. Again two are right.
        ([False, True, True], 3 / 6),
        # Without class 1: 0, 2, 0. One is right.
        ([True, False, True], 2 / 6),
        # Only class 2: none.
        ([False, False, True], 1 / 6),
    ],
)
def test_accuracy_is_over_the_classes_a_source_knows_and_smoothed(
    mask: list[bool], expected: float
) -> None:
    got = smoothed_accuracy(PROBABILITIES_LC, np.array([0, 1, 1]), np.array(mask))
    assert got == pytest.approx(expected)
