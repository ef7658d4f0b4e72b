"""The report's macro-F1: by hand, and as scikit-learn has it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from graft.rounds.model_test import macro_f1


def test_a_case_by_hand() -> None:
    # Class 0: 2 / (2 + 1 missed). Class 2: 2 / (2 + 2 wrong). Class 4: never found.
    y_N, predicted_N = np.array([0, 0, 2, 4]), np.array([0, 2, 2, 2])
    assert macro_f1(y_N, predicted_N) == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_it_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    y_N, predicted_N = (np.array(column) for column in zip(*pairs, strict=True))
    wanted = f1_score(y_N, predicted_N, average="macro", zero_division=0)
    assert macro_f1(y_N, predicted_N) == pytest.approx(wanted, abs=1e-12)
