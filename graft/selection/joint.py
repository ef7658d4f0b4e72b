"""Joint selection (A2, ours): the device runs the candidates on its rows and scores them.

Legend: S sources, N samples, L labelled samples, C classes, F features.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from graft.core.config import SelectionConfig
from graft.core.records import BoolArray, FloatArray, IntArray

Floating = TypeVar("Floating", npt.NDArray[np.float32], npt.NDArray[np.float64])


def centroid_similarity(features_NF: FloatArray, centroids_CF: FloatArray | None) -> float:
    """a_s: mean over samples of the best cosine between a feature and a class centroid.

    0 where the source's policy withheld every centroid.
    """
    if centroids_CF is None:
        return 0.0
    known = np.linalg.norm(centroids_CF, axis=1) > 0
    if not known.any():
        return 0.0
    cosine_NC = unit_rows(features_NF) @ unit_rows(centroids_CF[known]).T
    return float(cosine_NC.max(axis=1).mean())


def smoothed_accuracy(probabilities_LC: FloatArray, y_L: IntArray, mask_C: BoolArray) -> float:
    """b_s = (correct + 1) / (n_L + C), over the classes that the source knows."""
    masked_LC = np.where(mask_C, probabilities_LC, -1.0)
    correct = int((masked_LC.argmax(1) == y_L).sum())
    return (correct + 1) / (len(y_L) + len(mask_C))


def joint_scores(
    similarity_S: Sequence[float], accuracy_S: Sequence[float], score_mix: float
) -> npt.NDArray[np.float64]:
    """score = lambda zscore(b) + (1 - lambda) zscore(a)."""
    scores_S: npt.NDArray[np.float64] = score_mix * _zscore(accuracy_S) + (1 - score_mix) * _zscore(
        similarity_S
    )
    return scores_S


def rank_scores(
    score_S: Mapping[str, Sequence[float]], config: SelectionConfig
) -> npt.NDArray[np.float64]:
    """What a probe ranks by, of the scores of ``probe_scores``: A2 of two, or the one score in
    units of its deviation over the candidates. 0 is a candidate like the others."""
    if len(score_S) == 2:
        return joint_scores(score_S["similarity"], score_S["accuracy"], config.score_mix)
    return _zscore(next(iter(score_S.values())))


def _zscore(values: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    deviation = array.std() if array.size else 0.0
    if deviation < 1e-12:
        return np.zeros_like(array)
    scaled: npt.NDArray[np.float64] = (array - array.mean()) / deviation
    return scaled


def unit_rows(rows: Floating) -> Floating:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Floating = rows / np.maximum(lengths, 1e-12)
    return scaled
