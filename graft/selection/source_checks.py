"""What a target domain can check of a source by itself: does its card state the truth?

By default only what no honest source was seen to give counts against a source.

Legend: N rows, L labelled rows, C classes, F features.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from scipy.special import betainc

from graft.core.config import TrustConfig
from graft.core.records import BoolArray, FloatArray, IntArray

Reason = Literal["scale", "centroids", "payload", "profile", "chance", "disagreement"]
# What the server can find itself; the others are doubts of one target domain, about its own rows.
RECOMPUTED: Final = frozenset({"scale", "centroids", "payload"})
# exp(-88) is the least normal float32: beyond it every prediction is 0 or 1, where cross-entropy
# has no gradient left and no training ends. Honest logits were below 4 in the mean.
MAX_LOGIT: Final = 88.0
# The largest of 624 honest ones, of six data sets, had 2.4 times the median of those offered with
# it. A GRU whose features end in tanh bounds its own logits, and with random weights has 5 times.
MAX_TIMES_MEDIAN: Final = 4.0
# Centroids that do not belong to the model have 0 in the mean and a deviation of 1. Honest ones
# of 24 initial domains had 1.15 or more after 3 training steps, 3.3 after 10 and 4.6 after 150.
MIN_CONSISTENCY: Final = 1.0
_LEAST_CLASSES: Final = 4
# Four of ten candidates honest, sources dropped among them knew 25 % of a target domain's rows with
# this weight and 33 % without; as many liars were dropped.
_LABELS_WEIGH: Final = 4.0


def centroid_consistency(logits_CC: FloatArray, centroids_CF: FloatArray | None) -> float:
    """How much better a card's centroids fit the model's head than in another order (ours).

    ``logits_CC[c, k]``: what the head gives class k on the centroid of c. Training on rows of
    class c raises its own logit there, so with rows and columns centred the trace is large. It
    is measured in deviations over all permutations of the classes, of which the mean is 0 and the
    variance sum(a^2) / (C - 1), C the classes that have a centroid; at most C - 1. Infinite
    where fewer than four have one, for too few arrangements differ then.
    """
    if centroids_CF is None:
        return math.inf
    known_C = np.flatnonzero(np.linalg.norm(centroids_CF, axis=1) > 0)
    if len(known_C) < _LEAST_CLASSES:
        return math.inf
    own_KK = logits_CC[np.ix_(known_C, known_C)].astype(np.float64)
    own_KK = own_KK - own_KK.mean(0)
    own_KK = own_KK - own_KK.mean(1, keepdims=True)
    size = math.sqrt(float((own_KK**2).sum()) / (len(known_C) - 1))
    return float(np.trace(own_KK)) / size if size > 0 else 0.0


def above_chance(
    predicted_L: IntArray, y_L: IntArray, mask_C: BoolArray, level: float = 0.5
) -> bool:
    """Whether fewer than ``level`` of all random guessers among its classes do as well on L."""
    correct = int((predicted_L == y_L).sum())
    # The binomial's tail P(X >= correct), which is 1 - F(correct - 1), as an incomplete beta.
    tail = betainc(correct, len(y_L) - correct + 1, 1 / max(1, int(mask_C.sum())))
    return bool(tail < level)


def agrees(predicted_N: IntArray, others_N: IntArray, num_classes: int) -> bool:
    """Whether a source and the others predict the same class more often than by chance, given how
    often each predicts a class: by two deviations."""
    share_2C = [np.bincount(each, minlength=num_classes) for each in (predicted_N, others_N)]
    num_rows = len(predicted_N)
    chance = float((share_2C[0] * share_2C[1]).sum()) / num_rows**2
    apart = float((predicted_N == others_N).mean()) - chance
    return apart > 2 * math.sqrt(chance * (1 - chance) / num_rows)


def disagreeing_sources(
    log_SNC: FloatArray, labelled_N: BoolArray, y_L: IntArray, mask_SC: BoolArray
) -> list[int]:
    """Indices of sources that neither agree with the others nor are right on L (ours).

    The prediction of the others is their geometric mean, each weighing exp(4 x its accuracy on L),
    so that many sources that know nothing are no majority; on L it is the label. The target
    domain's labels decide: a source that is right on them may disagree with all others. None for
    fewer than three sources, and where no source would be left. ``log_SNC`` are bounded below.
    """
    if len(log_SNC) < 3:
        return []
    predicted_SN = log_SNC.argmax(2)
    accuracy_S = (predicted_SN[:, labelled_N] == y_L).mean(1) if len(y_L) else np.zeros(1)
    weighed_SNC = log_SNC * np.exp(_LABELS_WEIGH * accuracy_S)[:, None, None]
    total_NC = weighed_SNC.sum(0)
    found = []
    for index, predicted_N in enumerate(predicted_SN):
        others_N = (total_NC - weighed_SNC[index]).argmax(1)
        others_N[labelled_N] = y_L
        if not agrees(predicted_N, others_N, log_SNC.shape[2]) and not above_chance(
            predicted_N[labelled_N], y_L, mask_SC[index], level=0.05
        ):
            found.append(index)
    return found if len(found) < len(log_SNC) else []


def logit_outliers(size_S: Sequence[float]) -> list[int]:
    """Indices of sources whose mean |logit| is more than four times the median of all; none of
    fewer than three sources."""
    if len(size_S) < 3:
        return []
    bound = MAX_TIMES_MEDIAN * float(np.median(size_S))
    return [index for index, size in enumerate(size_S) if size > bound]


def verify_source(
    size: float,
    consistency: float,
    better_than_chance: bool,
    claims_near: bool,
    config: TrustConfig,
) -> Reason | None:
    """Why a source is rejected, or None; ``size`` is its mean |logit| on the domain's rows.

    ``claims_near``: its profile is among the nearer half of those offered. With ``config.chance``
    such a profile counts against a model that does not beat chance.
    """
    if config.verify:
        if not np.isfinite(size) or size > MAX_LOGIT:
            return "scale"
        if consistency < MIN_CONSISTENCY:
            return "centroids"
    if config.chance and not better_than_chance:
        return "profile" if claims_near else "chance"
    return None
