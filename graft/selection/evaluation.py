"""How well a score chose sources.

Legend: S sources, k chosen.
"""

import numpy as np
import numpy.typing as npt

from graft.core.records import IntArray
from graft.core.seeding import stream
from graft.errors import ConfigError, DomainEmptyError, DomainShapeError, DomainValueError
from graft.selection.scores.labels import Floats


def weighted_tau(score_S: npt.ArrayLike, truth_S: npt.ArrayLike) -> float:
    """Weighted Kendall tau of a score and the truth: do the orders agree, above all at the top.

    Vigna, WWW 2015, as ``scipy.stats.weightedtau`` has it by default: a swap of ranks r and s,
    counted from 0, weighs 1/(r+1) + 1/(s+1). Between -1 and 1; 0 where either side is the same for
    every source. Raises DomainShapeError, DomainEmptyError or DomainValueError for two that are
    not of one length, empty, or not finite.
    """
    score, truth = _checked(score_S, truth_S)
    if np.ptp(score) == 0 or np.ptp(truth) == 0:
        return 0.0
    from scipy.stats import weightedtau

    return float(weightedtau(score, truth).statistic)


def top_k_regret(score_S: npt.ArrayLike, truth_S: npt.ArrayLike, k: int) -> float:
    """Best true accuracy of all sources less the best among the k highest scores (0 to 1); raises
    as ``weighted_tau`` does, and ConfigError for k < 1."""
    score, truth = _checked(score_S, truth_S)
    return float(truth.max() - truth[top_k(score, k)].max())


def top_k_shortfall(score_S: npt.ArrayLike, truth_S: npt.ArrayLike, k: int) -> float:
    """Mean true accuracy of the truly best k less that of the k highest scores (0 to 1; ours).

    What a method loses that fuses all k chosen; ``top_k_regret`` is of one that finds the best of
    them. Raises as ``top_k_regret`` does.
    """
    score, truth = _checked(score_S, truth_S)
    return float(truth[top_k(truth, k)].mean() - truth[top_k(score, k)].mean())


def top_k(score_S: npt.ArrayLike, k: int) -> IntArray:
    """Indices of the k highest scores, best first; of equal ones the earlier. All where k >= S.

    Raises ConfigError for k < 1.
    """
    if k < 1:
        raise ConfigError(f"sources chosen: got {k}, wanted at least 1")
    order_S: IntArray = np.argsort(-np.asarray(score_S, np.float64), kind="stable")
    return order_S[:k]


def random_scores(num_sources: int, *keys: object) -> npt.NDArray[np.float64]:
    """A score in [0, 1) for every source (S,), drawn from the stream of ``keys``."""
    return stream("random-selection", *keys).random(num_sources)


def _checked(score_S: npt.ArrayLike, truth_S: npt.ArrayLike) -> tuple[Floats, Floats]:
    score, truth = np.asarray(score_S, np.float64), np.asarray(truth_S, np.float64)
    if score.ndim != 1 or score.shape != truth.shape:
        raise DomainShapeError(
            f"scores and truth: got shapes {score.shape} and {truth.shape}, wanted one (S,)"
        )
    if not len(score):
        raise DomainEmptyError("scores: got 0 sources, wanted at least 1")
    if not (np.isfinite(score).all() and np.isfinite(truth).all()):
        raise DomainValueError("scores and truth: got NaN or infinity, wanted finite numbers")
    return score, truth
