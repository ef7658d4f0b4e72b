"""H-score, LogME, TransRate, PARC, GBC and the linear probe, by hand and by other means."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, spearmanr
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from graft.errors import DomainEmptyError, DomainShapeError, DomainValueError
from graft.selection.scores.features import (
    gbc_score,
    h_score,
    linear_probe_score,
    logme_score,
    parc_score,
    transrate_score,
)

Score = Callable[..., float]
SCORES = (h_score, logme_score, transrate_score, parc_score, gbc_score, linear_probe_score)
seeds = st.integers(0, 10_000)


def blobs(
    seed: int, rows: int = 24, width: int = 5, classes: int = 3, gap: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Unit Gaussians about class means ``gap`` wide."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    means = gap * rng.normal(size=(classes, width))
    return means[y] + rng.normal(size=(rows, width)), y


# --- by hand ---------------------------------------------------------------------------------


def test_h_score_by_hand() -> None:
    # Feature 1 is the label (+-1), feature 2 has no class mean: variance 1 of 1 is explained.
    features = [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    assert h_score(features, [0, 0, 1, 1]) == pytest.approx(1)
    # Feature 1 at +-1 about class means +-1: variance 2, of which 1 lies between the classes.
    assert h_score([[2.0], [0.0], [0.0], [-2.0]], [0, 0, 1, 1]) == pytest.approx(1 / 2)


def test_h_score_is_what_discriminant_analysis_finds() -> None:
    # LDA's eigenvalues l of within^-1 between give l / (1 + l) of total^-1 between.
    features, y = blobs(0, rows=60)
    means = np.stack([features[y == c].mean(0) for c in range(3)])
    within = sum(np.cov(features[y == c].T, bias=True) / 3 for c in range(3))
    between = np.cov(means[y].T, bias=True)
    values = np.linalg.eigvals(np.linalg.solve(within, between)).real
    assert h_score(features, y) == pytest.approx((values / (1 + values)).sum())
    analysis = LinearDiscriminantAnalysis(solver="eigen").fit(features, y)
    assert len(analysis.explained_variance_ratio_) == np.sum(values > 1e-9) == 2


def test_h_score_is_shrunk_where_rows_are_fewer_than_features() -> None:
    features, y = blobs(1, rows=9, width=20)
    fitted = LedoitWolf().fit(features)
    means = np.stack([features[y == c].mean(0) for c in range(3)])
    between = np.cov(means[y].T, bias=True)
    expected = (1 - fitted.shrinkage_) * np.trace(np.linalg.inv(fitted.covariance_) @ between)
    assert h_score(features, y) == pytest.approx(expected)
    assert h_score(features, y, shrunk=True) == h_score(features, y)
    # Unshrunk, nine points in twenty dimensions are always told apart: C - 1 whatever they are.
    assert h_score(features, y, shrunk=False) == pytest.approx(2)
    assert h_score(features, y) < 1.9


def brute_force_evidence(features: np.ndarray, target: np.ndarray) -> float:
    """max over (alpha, beta) of log N(y; 0, I / beta + f f' / alpha) a row, by Nelder-Mead."""

    def loss(log_precisions: np.ndarray) -> float:
        alpha, beta = np.exp(np.clip(log_precisions, -20, 20))
        covariance = np.eye(len(target)) / beta + features @ features.T / alpha
        return -multivariate_normal.logpdf(target, cov=covariance, allow_singular=True)

    starts = [(0.0, 0.0), (4.0, 0.0), (-4.0, 2.0)]
    best = min(
        minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).fun
        for start in starts
    )
    return -best / len(target)


@pytest.mark.parametrize(("rows", "width"), [(12, 4), (8, 15)])
def test_logme_is_the_maximum_of_the_evidence(rows: int, width: int) -> None:
    features, y = blobs(2, rows=rows, width=width, classes=2)
    expected = np.mean([brute_force_evidence(features, (y == c).astype(float)) for c in (0, 1)])
    assert logme_score(features, y) == pytest.approx(expected, abs=1e-5)


def test_logme_of_useless_features_is_that_of_noise() -> None:
    # Features of zeros leave y ~ N(0, 1/beta): beta is 1 / mean(y^2) = 2 for half the rows.
    expected = -(np.log(2 * np.pi / 2) + 1) / 2
    assert logme_score(np.zeros((4, 3)), [0, 0, 1, 1]) == pytest.approx(expected)


def test_transrate_by_hand() -> None:
    # Classes are not centred by themselves: at +-1, all rows and either class have mean square 1.
    assert transrate_score([[1.0], [-1.0]], [0, 1]) == pytest.approx(0, abs=1e-12)
    # Four corners: two axes of mean square 1 in all, but one axis of mean square 2 (a diagonal)
    # within a class: log(1 + 1/eps) - log(1 + 2/eps) / 2.
    corners = [[1, 1], [-1, -1], [1, -1], [-1, 1]]
    expected = np.log1p(1e4) - np.log1p(2e4) / 2
    assert transrate_score(corners, [0, 0, 1, 1]) == pytest.approx(expected)


def test_parc_is_spearmans_correlation_of_the_two_dissimilarities() -> None:
    features, y = blobs(4, rows=10, width=6)
    standard = (features - features.mean(0)) / features.std(0)
    pairs = np.triu_indices(10, 1)
    apart = (1 - np.corrcoef(standard))[pairs]
    # Rounded: the pairs of one class tie but for the last digit.
    other = np.round(1 - np.corrcoef(np.eye(3)[y]), 9)[pairs]
    assert parc_score(features, y) == pytest.approx(spearmanr(apart, other).statistic)


def test_parc_of_two_opposite_pairs_is_one() -> None:
    # Same-class pairs do not differ, the four others do, in features as in labels.
    assert parc_score([[1, 0], [1, 0], [0, 1], [0, 1]], [0, 0, 1, 1]) == pytest.approx(1)
    assert parc_score([[1, 0], [0, 1], [1, 0], [0, 1]], [0, 0, 1, 1]) < 0


def test_gbc_by_hand() -> None:
    # Means +-3 and deviations +-1 in one dimension: total variance 10, within 4 over 4 rows.
    # Pooled: (4 + 10) / (4 - 2 + 1) = 14/3; each class (2 + 14/3) / 2 = 10/3. Of equal
    # variances the distance is 36 / (8 * 10/3) = 1.35, and both ordered pairs count.
    features = [[4.0], [2.0], [-2.0], [-4.0]]
    assert gbc_score(features, [0, 0, 1, 1]) == pytest.approx(-2 * np.exp(-1.35))


def test_gbc_counts_unequal_spread_as_separation() -> None:
    # Equal means, sums of squares 0 and 8: total 2, pooled (8 + 2) / 3; variances 5/3 and 17/3,
    # mean 11/3: D = log((11/3) / sqrt(5/3 * 17/3)) / 2.
    expected = -2 * np.exp(-np.log((11 / 3) / np.sqrt(85 / 9)) / 2)
    assert gbc_score([[0.0], [0.0], [2.0], [-2.0]], [0, 0, 1, 1]) == pytest.approx(expected)


def test_linear_probe_leaves_each_row_out() -> None:
    # The same ridge with the intercept as a feature of ones, fitted without each row in turn.
    features, y = blobs(6, rows=15, width=4)
    spread = features - features.mean(0)
    spread /= np.sqrt((spread**2).sum(1).mean())
    rows = np.c_[spread, np.ones(15)]
    right = 0
    for out in range(15):
        kept = np.arange(15) != out
        model = Ridge(alpha=0.3, fit_intercept=False).fit(rows[kept], np.eye(3)[y[kept]])
        right += int(model.predict(rows[[out]])[0].argmax() == y[out])
    assert linear_probe_score(features, y) == pytest.approx(right / 15)


# --- laws of all -----------------------------------------------------------------------------


@pytest.mark.parametrize("score", SCORES)
@settings(deadline=None, max_examples=20)
@given(seed=seeds, rows=st.integers(4, 20), width=st.integers(1, 24))
def test_order_of_rows_and_features_and_names_of_classes_do_not_matter(
    score: Score, seed: int, rows: int, width: int
) -> None:
    features, y = blobs(seed, rows=rows, width=width)
    rng = np.random.default_rng(seed)
    by_row, by_feature = rng.permutation(rows), rng.permutation(width)
    renamed = np.array([7, 0, 4])[y]
    moved = score(features[by_row][:, by_feature], renamed[by_row])
    assert moved == pytest.approx(score(features, y), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("score", [score for score in SCORES if score is not transrate_score])
@settings(deadline=None, max_examples=15)
@given(seed=seeds, scale=st.floats(0.01, 100))
def test_units_of_the_features_do_not_matter(score: Score, seed: int, scale: float) -> None:
    features, y = blobs(seed, rows=12, width=20)
    assert score(features * scale, y) == pytest.approx(score(features, y), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("score", SCORES)
def test_classes_farther_apart_score_higher(score: Score) -> None:
    # At 0 the labels are noise to the features, at 8 any method tells the classes apart.
    values = [np.mean([score(*blobs(s, width=8, gap=gap)) for s in range(8)]) for gap in (0, 1, 8)]
    assert values[0] < values[1] < values[2]


RANGES: dict[Score, Callable[[int, int], tuple[float, float]]] = {
    h_score: lambda classes, width: (0, min(classes - 1, width)),
    transrate_score: lambda classes, width: (0, np.inf),
    parc_score: lambda classes, width: (-1, 1),
    gbc_score: lambda classes, width: (-classes * (classes - 1), 0),
    linear_probe_score: lambda classes, width: (0, 1),
    logme_score: lambda classes, width: (-np.inf, np.inf),
}


@pytest.mark.parametrize("score", SCORES)
@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(-3, 3), min_size=3, max_size=3)),
        min_size=1, max_size=9,
    )
)  # fmt: skip
def test_tiny_and_degenerate_rows_give_a_number_in_range(
    score: Score, rows: list[tuple[int, list[int]]]
) -> None:
    y = np.array([label for label, _ in rows])
    value = score([row for _, row in rows], y)
    low, high = RANGES[score](len(np.unique(y)), 3)
    assert np.isfinite(value)
    assert low - 1e-6 <= value <= high + 1e-6


DEGENERATE = {
    "one row": (np.array([[1.0, 2.0]]), np.array([0])),
    "two rows": (np.array([[1.0, 2.0], [2.0, 0.0]]), np.array([0, 1])),
    "one class": (blobs(0)[0], np.zeros(24, np.int64)),
    "constant": (np.full((6, 4), 0.1), np.arange(6) % 2),
    "zeros": (np.zeros((6, 4)), np.arange(6) % 2),
    "a dead feature": (blobs(0)[0] * [1, 1, 0, 1, 1], blobs(0)[1]),
    "a class a row": (blobs(0, rows=6, width=40)[0], np.arange(6)),
    "float32": (blobs(0)[0].astype(np.float32), blobs(0)[1].astype(np.int32)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("score", SCORES)
def test_every_score_is_finite_without_a_warning(score: Score, case: str) -> None:
    features, y = DEGENERATE[case]
    assert np.isfinite(score(features, y))


@pytest.mark.parametrize(
    ("score", "one_class", "constant"),
    [(h_score, 0, 0), (transrate_score, 0, 0), (parc_score, 0, 0), (gbc_score, 0, -2)],
)
def test_where_nothing_can_be_told_the_score_says_so(
    score: Score, one_class: float, constant: float
) -> None:
    assert score(*DEGENERATE["one class"]) == pytest.approx(one_class, abs=1e-9)
    assert score(*DEGENERATE["constant"]) == pytest.approx(constant, abs=1e-9)


def test_a_dead_feature_changes_nothing() -> None:
    features, y = blobs(3, rows=30, width=4)
    padded = np.c_[features, np.full(30, 0.1)]
    for score in (h_score, logme_score, transrate_score, parc_score, linear_probe_score):
        other = padded if score is not logme_score else np.c_[features, np.zeros(30)]
        assert score(other, y) == pytest.approx(score(features, y), abs=1e-5)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("features", "y", "error"),
    [
        (np.zeros((0, 2)), np.zeros(0, np.int64), DomainEmptyError),
        (np.zeros((2, 0)), np.array([0, 1]), DomainShapeError),
        (np.zeros((2, 3)), np.array([0]), DomainShapeError),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), DomainShapeError),
        (np.zeros(3), np.array([0]), DomainShapeError),
        (np.array([[np.inf, 0.0]]), np.array([0]), DomainValueError),
    ],
)
def test_what_is_no_table_of_rows_is_refused(
    score: Score, features: np.ndarray, y: np.ndarray, error: type[Exception]
) -> None:
    with pytest.raises(error):
        score(features, y)
