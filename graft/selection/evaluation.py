"""How good a score was, once the true transfer accuracy of every source is known.

Legend: S sources.
"""

import numpy as np
import numpy.typing as npt

from graft.errors import DomainEmptyError, DomainShapeError, DomainValueError
from graft.selection.scores.bounds import oracle_k, top_k
from graft.selection.scores.inputs import Floats


def weighted_tau(score_S: npt.ArrayLike, truth_S: npt.ArrayLike) -> float:
    """Vigna's weighted Kendall tau (WWW 2015): do the requests agree, above all at the top.

    A swap of ranks r and s weighs 1/(r+1) + 1/(s+1), ranks from 0, as scipy.stats.weightedtau
    has it by default. Between -1 and 1; 0 where either side is the same for every source, or
    where there is one source alone. Raises DomainShapeError, DomainEmptyError or
    DomainValueError.
    """
    score, truth = _checked(score_S, truth_S)
    if np.ptp(score) == 0 or np.ptp(truth) == 0:
        return 0.0
    from scipy.stats import weightedtau

    return float(weightedtau(score, truth).statistic)


def top_k_regret(score_S: npt.ArrayLike, truth_S: npt.ArrayLike, k: int) -> float:
    """Best true accuracy of all sources less the best among the k highest scores (a share).

    0 where the best source is among them, at most the range of the truth. Raises as
    ``weighted_tau`` does, and ConfigError for k < 1.
    """
    score, truth = _checked(score_S, truth_S)
    return float(truth.max() - truth[top_k(score, k)].max())


def top_k_shortfall(score_S: npt.ArrayLike, truth_S: npt.ArrayLike, k: int) -> float:
    """Mean true accuracy of the truly best k less that of the k highest scores (a share; ours).

    What a method loses that fuses all k chosen, where ``top_k_regret`` is of one that finds
    out the best of them. 0 or above. Raises as ``top_k_regret`` does.
    """
    score, truth = _checked(score_S, truth_S)
    return float(truth[oracle_k(truth, k)].mean() - truth[top_k(score, k)].mean())


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
