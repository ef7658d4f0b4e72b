"""Selection without a score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core.records import IntArray
from graft.errors import ConfigError
from graft.selection.evaluation import random_scores, top_k

SCORES = st.lists(st.integers(-20, 20), min_size=1, max_size=12)


def test_the_highest_come_first_and_of_equal_ones_the_earlier() -> None:
    np.testing.assert_array_equal(top_k([1.0, 3.0, 2.0, 3.0], 3), [1, 3, 2])
    np.testing.assert_array_equal(top_k([0.2, 0.9, 0.5], 1), [1])
    np.testing.assert_array_equal(top_k([0.0, 1.0] * 500, 3), [1, 3, 5])


@settings(deadline=None)
@given(SCORES, st.integers(1, 15))
def test_nothing_left_out_scores_higher_than_what_was_chosen(scores: list[int], k: int) -> None:
    chosen = top_k(scores, k)
    assert len(set(chosen.tolist())) == len(chosen) == min(k, len(scores))
    left_out = np.delete(np.array(scores), chosen)
    assert not len(left_out) or left_out.max() <= min(np.array(scores)[chosen])


def random_k(num_sources: int, k: int, *keys: object) -> IntArray:
    return top_k(random_scores(num_sources, *keys), k)


def test_more_than_there_are_leaves_nothing_out() -> None:
    np.testing.assert_array_equal(np.sort(random_k(3, 9, 0)), [0, 1, 2])


def test_random_choice_follows_its_keys_alone() -> None:
    np.testing.assert_array_equal(random_k(50, 5, 1, "a"), random_k(50, 5, 1, "a"))
    assert random_k(50, 5, 1, "a").tolist() != random_k(50, 5, 1, "b").tolist()


def test_random_choice_favours_nobody() -> None:
    # 2 of 4 sources in 2000 draws: each 1000 times, give or take four deviations of
    # sqrt(2000 / 4) = 22.
    counts = np.zeros(4)
    for draw in range(2000):
        counts[random_k(4, 2, draw)] += 1
    assert (np.abs(counts - 1000) < 4 * 22.4).all()
    assert ((random_scores(100, 7) >= 0) & (random_scores(100, 7) < 1)).all()


@pytest.mark.parametrize("k", [0, -1])
def test_choosing_nobody_is_refused(k: int) -> None:
    for choose in (lambda: top_k([1.0], k), lambda: random_k(1, k)):
        with pytest.raises(ConfigError, match="at least 1"):
            choose()
