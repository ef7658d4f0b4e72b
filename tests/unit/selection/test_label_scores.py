"""LEEP, NCE and the likelihood, by hand and against scikit-learn."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, mutual_info_score

from graft.errors import DomainClassError, DomainEmptyError, DomainShapeError, DomainValueError
from graft.selection.scores.labels import leep_score, likelihood_score, nce_score

SCORES = (leep_score, nce_score, likelihood_score)


def draw(seed: int, rows: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), rows), rng.integers(0, classes, rows)


def test_leep_by_hand() -> None:
    # P(y, z) / P(z) of labels 0, 1: column 0 gives 0.8 and 0.4 of 1.2, column 1 0.2 and 0.6 of 0.8.
    theta = [[0.8, 0.2], [0.4, 0.6]]
    first = 0.8 * 0.8 / 1.2 + 0.2 * 0.2 / 0.8
    second = 0.4 * 0.4 / 1.2 + 0.6 * 0.6 / 0.8
    assert leep_score(theta, [0, 1]) == pytest.approx((np.log(first) + np.log(second)) / 2)


def test_nce_by_hand() -> None:
    # The source calls four rows a, a, a, b. Of the three a, two are of class 0: the surprise is
    # 2 log(3/2) + log 3; b is of class 1 alone.
    theta = np.eye(2)[[0, 0, 0, 1]]
    expected = -(2 * np.log(3 / 2) + np.log(3)) / 4
    assert nce_score(theta, [0, 0, 1, 1]) == pytest.approx(expected)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_nce_is_mutual_information_less_entropy(seed: int, rows: int) -> None:
    theta, y = draw(seed, rows)
    given_by_source = theta.argmax(1)
    entropy = mutual_info_score(y, y)
    expected = mutual_info_score(given_by_source, y) - entropy
    assert nce_score(theta, y) == pytest.approx(expected, abs=1e-12)


def test_leep_of_certain_predictions_is_nce() -> None:
    # One-hot probabilities leave sum_z P(y | z) theta_z = P(y | argmax): the same surprise.
    theta, y = draw(3, 40)
    certain = np.eye(3)[theta.argmax(1)]
    assert leep_score(certain, y) == pytest.approx(nce_score(certain, y))


def test_likelihood_is_the_log_loss_of_a_hundredth_spread() -> None:
    theta, y = draw(5, 20)
    expected = -log_loss(y, 0.99 * theta + 0.01 / 3, labels=[0, 1, 2])
    assert likelihood_score(theta, y) == pytest.approx(expected)
    assert likelihood_score([[1, 0, 0]], [2]) == pytest.approx(-np.log(300))


@pytest.mark.parametrize("score", [leep_score, nce_score])
def test_names_of_classes_do_not_matter(score: Callable[..., float]) -> None:
    theta, y = draw(7, 25)
    expected = score(theta, y)
    assert score(theta[:, [2, 0, 1]], y) == pytest.approx(expected)
    assert score(theta, np.array([8, 5, 1])[y]) == pytest.approx(expected)
    # A class that the source gives no chance to anything is as if it were not there.
    assert score(np.c_[theta, np.zeros(25)], y) == pytest.approx(expected)


@pytest.mark.parametrize("score", SCORES)
@settings(deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 20))
def test_order_of_rows_does_not_matter_and_nothing_beats_zero(
    score: Callable[..., float], seed: int, rows: int
) -> None:
    theta, y = draw(seed, rows)
    order = np.random.default_rng(seed).permutation(rows)
    value = score(theta, y)
    assert score(theta[order], y[order]) == pytest.approx(value)
    lowest = -np.log(300) if score is likelihood_score else -np.log(len(np.unique(y)))
    assert lowest - 1e-9 <= value <= 0


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.9))
def test_more_chance_for_the_true_class_is_never_worse(seed: int, share: float) -> None:
    theta, y = draw(seed, 12)
    better = (1 - share) * theta + share * np.eye(3)[y]
    assert likelihood_score(better, y) > likelihood_score(theta, y)
    assert leep_score(np.eye(3)[y], y) == pytest.approx(0)
    assert nce_score(np.eye(3)[y], y) == 0


@pytest.mark.parametrize("score", SCORES)
def test_one_row_or_one_class_is_a_number(score: Callable[..., float]) -> None:
    assert np.isfinite(score([[0.1, 0.9]], [0]))
    assert np.isfinite(score([[0.0, 1.0], [0.5, 0.5]], [0, 0]))


@pytest.mark.parametrize("score", [leep_score, nce_score])
def test_one_class_is_no_surprise(score: Callable[..., float]) -> None:
    assert score([[0.1, 0.9], [0.6, 0.4]], [1, 1]) == pytest.approx(0)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("theta", "y", "error"),
    [
        (np.zeros((0, 2)), [], DomainEmptyError),
        ([[0.5, 0.5]], [0, 1], DomainShapeError),
        ([[0.5, 0.5]], [0.0], DomainShapeError),
        ([0.5, 0.5], [0, 1], DomainShapeError),
        ([[np.nan, 1]], [0], DomainValueError),
        ([[2.0, -1.0]], [0], DomainValueError),
        ([[3.0, 1.0]], [0], DomainValueError),  # logits
    ],
)
def test_what_is_no_prediction_is_refused(
    score: Callable[..., float], theta: object, y: list[float], error: type[Exception]
) -> None:
    with pytest.raises(error):
        score(theta, np.array(y) if y else np.zeros(0, np.int64))


def test_a_label_outside_the_classes_has_no_likelihood() -> None:
    with pytest.raises(DomainClassError, match="wanted 0 to 1"):
        likelihood_score([[0.5, 0.5]], [2])
