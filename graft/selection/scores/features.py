"""Scores of how well a source's features separate the target domain's classes.

Each takes the source's features of the labelled rows, and their classes, without the source's
head; higher is better. Each is finite from one labelled row upwards, and the same for every source
where there is nothing to separate (one class, constant features). Each raises DomainShapeError,
DomainEmptyError or DomainValueError where features and labels are not (L, F) and (L,), have no
row, or are not finite.

Legend: L labelled samples, F features, C classes present.
"""

import numpy as np
import numpy.typing as npt

from graft.selection.joint import unit_rows
from graft.selection.scores.labels import Floats, Ints, checked_labels, checked_rows

# How far alpha / beta may lie from the mean squared singular value; evidence is flat beyond.
_LOGME_DECADES = 6
_TRANSRATE_DISTORTION = 1e-4
# Of the features' mean squared length; from 0.1 to 1 the ranking of sources hardly moves.
_RIDGE = 0.3


def h_score(features_LF: npt.ArrayLike, y_L: npt.ArrayLike, shrunk: bool | None = None) -> float:
    """H-score: tr(cov(f)^-1 cov(E[f | y])) (Bao et al., ICIP 2019), between 0 and
    min(C - 1, F).

    ``shrunk`` takes Ledoit and Wolf's covariance and the class part's share of it (1 - shrinkage),
    after Ibrahim, Ponomareva and Mazumder, ECML PKDD 2022. None: where L < F, as the plain
    covariance has no inverse there.
    """
    from sklearn.covariance import empirical_covariance, ledoit_wolf

    features = checked_rows(features_LF)
    class_L, counts_C = checked_labels(y_L, len(features))
    spread = _centred(features)
    if not spread.any():
        return 0.0
    if shrunk is None:
        shrunk = spread.shape[0] < spread.shape[1]
    if shrunk:
        covariance_FF, shrinkage = ledoit_wolf(spread, assume_centered=True)
    else:
        covariance_FF, shrinkage = empirical_covariance(spread, assume_centered=True), 0.0
    means_CF = _class_means(spread, class_L, counts_C)
    between_FF = (means_CF.T * counts_C) @ means_CF / len(spread)
    solved_FF = np.linalg.pinv(covariance_FF, hermitian=True) @ between_FF
    return float((1 - shrinkage) * np.trace(solved_FF))


def logme_score(features_LF: npt.ArrayLike, y_L: npt.ArrayLike) -> float:
    """LogME: maximum log-evidence a row of a Bayesian linear model, mean over classes.

    You, Liu, Wang and Long, ICML 2021. Each class present is a 0/1 target with prior precision
    alpha and noise precision beta. Both are maximised over: beta in closed form, their ratio
    t in one dimension, where the evidence is that of y ~ N(0, (I + f f' / t) / beta).
    In nats, unbounded either way.
    """
    features = checked_rows(features_LF)
    class_L, counts_C = checked_labels(y_L, len(features))
    left_LR, singular_R, _ = np.linalg.svd(features, full_matrices=False)
    power_R = singular_R**2
    unit = power_R.mean() or 1.0
    target_LC = np.eye(len(counts_C))[class_L]
    projected_RC = (left_LR.T @ target_LC) ** 2
    unreached_C = np.maximum(counts_C - projected_RC.sum(0), 0)
    evidence_C = [
        _maximum_evidence(power_R / unit, projected_R, unreached, len(features))
        for projected_R, unreached in zip(projected_RC.T, unreached_C, strict=True)
    ]
    return float(np.mean(evidence_C))


def transrate_score(features_LF: npt.ArrayLike, y_L: npt.ArrayLike) -> float:
    """TransRate: coding rate of all features less that within the classes.

    Huang et al., ICML 2022: R(Z) - sum_c n_c/n R(Z_c), R(Z) = logdet(I + Z'Z / (n eps)) / 2,
    Z centred as a whole, eps = 1e-4. The shares n_c/n keep it at 0 or above where classes are
    unequal; the paper's listing weighs classes alike.
    In nats; it depends on the features' unit.
    """
    features = checked_rows(features_LF)
    class_L, counts_C = checked_labels(y_L, len(features))
    spread = _centred(features)
    within = sum(
        count / len(spread) * _coding_rate(spread[class_L == c]) for c, count in enumerate(counts_C)
    )
    return float(_coding_rate(spread) - within)


def parc_score(features_LF: npt.ArrayLike, y_L: npt.ArrayLike) -> float:
    """PARC: do rows that are alike in features bear the same label.

    Bolya, Mittapalli and Hoffman, NeurIPS 2021: Spearman's correlation, over the pairs of
    rows, of 1 - Pearson between standardised features with 1 - Pearson between one-hot labels
    (which takes two values: same class or not). Without the paper's PCA and factor of 100.
    Between -1 and 1.
    """
    from scipy.stats import rankdata

    features = checked_rows(features_LF)
    class_L, _ = checked_labels(y_L, len(features))
    spread = _centred(features)
    deviation_F = spread.std(0)
    varied_F = deviation_F > 0
    scaled_LF = spread[:, varied_F] / deviation_F[varied_F]
    unit_LF = unit_rows(scaled_LF - scaled_LF.mean(1, keepdims=True)) if varied_F.any() else spread
    first, second = np.triu_indices(len(features), 1)
    # Equal rows must tie: what is left of them after rounding must not rank them.
    apart = np.round(1 - (unit_LF @ unit_LF.T)[first, second], 12)
    other = (class_L[first] != class_L[second]).astype(np.float64)
    if not len(first) or np.ptp(apart) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.clip(np.corrcoef(rankdata(apart), rankdata(other))[0, 1], -1, 1))


def gbc_score(features_LF: npt.ArrayLike, y_L: npt.ArrayLike) -> float:
    """GBC: minus the overlap of the classes' Gaussians, -sum_{a != b} exp(-D_B(a, b)).

    Pandy et al., CVPR 2022, D_B being Bhattacharyya's distance, with spherical Gaussians. The
    estimate of their variance is ours: few rows bear labels, and one row has no variance, so
    every class starts from one row's worth of the variance within all classes, and that from
    one row's worth of the variance of all rows.
    Between -C (C - 1) and 0; 0 where L holds one class.
    """
    features = checked_rows(features_LF)
    class_L, counts_C = checked_labels(y_L, len(features))
    spread = _centred(features)
    means_CF = _class_means(spread, class_L, counts_C)
    deviation_L = ((spread - means_CF[class_L]) ** 2).mean(1)
    within_C = np.bincount(class_L, deviation_L)
    total = float((spread**2).mean())
    if not total:
        return -float(len(counts_C) * (len(counts_C) - 1))
    pooled = (within_C.sum() + total) / (len(spread) - len(counts_C) + 1)
    variance_C = (within_C + pooled) / counts_C
    log_C = np.log(variance_C)
    gap_CC = ((means_CF[:, None] - means_CF[None]) ** 2).sum(2)
    mean_CC = (variance_C[:, None] + variance_C[None]) / 2
    shape_CC = np.log(mean_CC) - (log_C[:, None] + log_C[None]) / 2
    overlap_CC = np.exp(-gap_CC / (8 * mean_CC) - spread.shape[1] / 2 * shape_CC)
    return -float(overlap_CC[~np.eye(len(counts_C), dtype=np.bool_)].sum())


def linear_probe_score(features_LF: npt.ArrayLike, y_L: npt.ArrayLike) -> float:
    """Leave-one-out accuracy on L of a ridge classifier of one-hot labels (ours).

    In closed form (Allen's PRESS): with H = K (K + r I)^-1, row i is predicted without itself as
    (H Y - h_ii Y)_i / (1 - h_ii). K is linear in the centred features, scaled to mean squared
    length 1, plus 1 for the intercept.
    Between 0 and 1; 1 where L holds one class.
    """
    features = checked_rows(features_LF)
    class_L, counts_C = checked_labels(y_L, len(features))
    spread = features - features.mean(0)
    kernel_LL = spread @ spread.T
    kernel_LL /= np.trace(kernel_LL) / len(features) or 1.0
    kernel_LL += 1
    target_LC = np.eye(len(counts_C))[class_L]
    ridge_LL = kernel_LL + _RIDGE * np.eye(len(features))
    hat_LL = np.linalg.solve(ridge_LL, kernel_LL)
    own_L1 = np.diag(hat_LL)[:, None]
    predicted_LC = (hat_LL @ target_LC - own_L1 * target_LC) / (1 - own_L1)
    return float((predicted_LC.argmax(1) == class_L).mean())


def _maximum_evidence(power_R: Floats, projected_R: Floats, unreached: float, rows: int) -> float:
    """max over t of log-evidence a row; ``power_R`` is in units of its mean, and so is t.

    ``projected_R`` and ``unreached`` share out |y|^2 over the singular directions and beyond.
    """

    def loss_of(log_t: npt.ArrayLike) -> Floats:
        t = np.exp(np.asarray(log_t))[..., None]
        misfit = (projected_R * t / (power_R + t)).sum(-1) + unreached
        # A target that is met exactly has no noise to speak of: keep its logarithm finite.
        log_noise = np.log(np.maximum(misfit / rows, 1e-12))
        spread = np.log1p(power_R / t).sum(-1) / rows
        loss: Floats = (log_noise + 1 + np.log(2 * np.pi) + spread) / 2
        return loss

    from scipy.optimize import minimize_scalar

    # The evidence may have two maxima: the higher is looked for on a grid, then refined.
    widest = _LOGME_DECADES * np.log(10.0)
    grid = np.linspace(-widest, widest, 4 * _LOGME_DECADES + 1)
    losses = loss_of(grid)
    best = int(losses.argmin())
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = minimize_scalar(loss_of, bounds=bounds, method="bounded")
    return -min(float(losses[best]), float(found.fun))


def _class_means(features_LF: Floats, class_L: Ints, counts_C: Ints) -> Floats:
    """Mean feature vector of each class present (C, F)."""
    sums_CF = np.zeros((len(counts_C), features_LF.shape[1]))
    np.add.at(sums_CF, class_L, features_LF)
    means_CF: Floats = sums_CF / counts_C[:, None]
    return means_CF


def _coding_rate(rows_NF: Floats) -> float:
    power = np.linalg.svd(rows_NF, compute_uv=False) ** 2
    return float(np.log1p(power / (len(rows_NF) * _TRANSRATE_DISTORTION)).sum() / 2)


def _centred(features_LF: Floats) -> Floats:
    """Less the mean; a feature that only rounding moves is exactly 0."""
    centred: Floats = features_LF - features_LF.mean(0)
    noise_F = 1e-12 * np.abs(features_LF).max(0)
    centred[:, np.abs(centred).max(0) <= noise_F] = 0
    return centred
