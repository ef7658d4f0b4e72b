"""Distances between two domains' samples, or between their profiles; no label is read.

Lower is nearer: their negatives are the scores. Samples are features of two domains in one
source's space; a profile is what a domain releases in any case.

Legend: M rows of the source, N rows of the target domain, F features, S sources, D statistics.
"""

import numpy as np
import numpy.typing as npt

from graft.errors import DomainEmptyError, DomainShapeError
from graft.selection.scores.labels import Floats, checked_rows

# The kernel is a mean over widths about the median squared distance, from 4 times it down to a
# quarter, so that no single width decides.
_WIDEST = 4.0
_NUM_WIDTHS = 5


def mmd_distance(source_MF: npt.ArrayLike, target_NF: npt.ArrayLike) -> float:
    """Squared maximum mean discrepancy, unbiased, with RBF kernels about the median distance.

    Gretton et al., JMLR 2012 (estimator: Lemma 6; median heuristic); the mean over five widths
    is ours. At most 2; below 0 about half of the time where both sides have one distribution.
    Raises DomainEmptyError, DomainShapeError or DomainValueError for fewer than two rows on a
    side, another F on each side, or a number that is not finite.
    """
    from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

    source, target = _checked_pair(source_MF, target_NF)
    if min(len(source), len(target)) < 2:
        raise DomainEmptyError(
            f"rows of source and target: got {len(source)} and {len(target)}, wanted 2 or more"
        )
    pooled = np.concatenate([source, target])
    squared = euclidean_distances(pooled, squared=True)[np.triu_indices(len(pooled), 1)]
    # Half of the rows may be equal: the mean then stands in for a median of 0.
    unit = float(np.median(squared)) or float(squared.mean())
    if not unit:
        return 0.0
    kernel = rbf_kernel(pooled, gamma=1 / (_WIDEST * unit))
    total = 0.0
    for _ in range(_NUM_WIDTHS):
        first, second = kernel[: len(source), : len(source)], kernel[len(source) :, len(source) :]
        across = float(kernel[: len(source), len(source) :].mean())
        total += _mean_of_pairs(first) + _mean_of_pairs(second) - 2 * across
        kernel **= 2  # half the width
    return total / _NUM_WIDTHS


def frechet_distance(source_MF: npt.ArrayLike, target_NF: npt.ArrayLike) -> float:
    """Squared Frechet distance of the Gaussians of two samples (Dowson and Landau, 1982).

    |m_s - m_t|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2), covariances by Ledoit and Wolf. 0 or
    above, in squared units of the features. Raises as ``mmd_distance`` does.
    """
    source, target = _checked_pair(source_MF, target_NF)
    gap = float(((source.mean(0) - target.mean(0)) ** 2).sum())
    first, second = (_covariance(rows) for rows in (source, target))
    values_F, vectors_FF = np.linalg.eigh(first)
    root = (vectors_FF * np.sqrt(np.maximum(values_F, 0))) @ vectors_FF.T
    # A^1/2 B A^1/2 is symmetric: the trace of its root is the sum of its eigenvalues' roots.
    shared = np.linalg.eigvalsh(root @ second @ root)
    shape = np.trace(first) + np.trace(second) - 2 * np.sqrt(np.maximum(shared, 0)).sum()
    return gap + max(float(shape), 0.0)


def profile_frechet_distances(
    statistics_D: npt.ArrayLike, statistics_SD: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Frechet distances (S,) of Gaussians with the profiles' means and deviations (ours).

    A profile is (mean, deviation) of each light statistic over a domain; taken as independent
    Gaussians, their squared distance is |m_s - m_t|^2 + |d_s - d_t|^2. Each statistic is in
    units of its mean deviation within the sources, and the result is a mean over statistics.
    0 or above. Raises DomainShapeError for profiles of unlike or odd length.
    """
    target = checked_rows(np.atleast_2d(np.asarray(statistics_D, np.float64)), "profile")[0]
    sources = checked_rows(statistics_SD, "profiles")
    if sources.shape[1] != target.size or target.size % 2:
        raise DomainShapeError(
            f"profiles: got {target.size} and {sources.shape[1]} statistics, wanted one even number"
        )
    half = target.size // 2
    unit_D = np.tile(sources[:, half:].mean(0), 2)
    # A statistic that varies within no source has no unit.
    varied_D = unit_D > 0
    gaps_SD = (sources - target)[:, varied_D] / unit_D[varied_D]
    distances_S: npt.NDArray[np.float64] = np.sqrt((gaps_SD**2).sum(1) / half)
    return distances_S


def _checked_pair(source_MF: npt.ArrayLike, target_NF: npt.ArrayLike) -> tuple[Floats, Floats]:
    source, target = checked_rows(source_MF, "source"), checked_rows(target_NF, "target")
    first, second = source.shape[1], target.shape[1]
    if first != second:
        raise DomainShapeError(
            f"features of source and target: got {first} and {second}, wanted as many"
        )
    return source, target


def _mean_of_pairs(kernel_NN: Floats) -> float:
    """Mean over pairs of different rows."""
    rows = len(kernel_NN)
    return float((kernel_NN.sum() - np.trace(kernel_NN)) / (rows * (rows - 1)))


def _covariance(rows_NF: Floats) -> Floats:
    """Ledoit and Wolf's; zero where no row differs from another."""
    if not np.ptp(rows_NF, axis=0).any():
        return np.zeros((rows_NF.shape[1], rows_NF.shape[1]))
    from sklearn.covariance import ledoit_wolf

    covariance_FF: Floats = ledoit_wolf(rows_NF)[0]
    return covariance_FF
