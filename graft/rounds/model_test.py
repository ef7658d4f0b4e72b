"""What a finished model reaches on a domain's test rows.

Legend: N rows, C classes, labels or amounts, F features.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graft.core.records import BoolArray, IntArray
from graft.core.tasks import OutputKind
from graft.models import Network
from graft.privacy import Noisy
from graft.training import predictions_of

Floats = npt.NDArray[np.float64]
_LOWEST_R2 = -1e6


@torch.no_grad()
def scores_of_test(
    network: Network, mask: BoolArray, features_NF: Tensor, y_N: IntArray, kind: OutputKind
) -> dict[str, float]:
    """The test's metrics by name: ``graft.core.results.SCORES`` of the kind, and num_test."""
    logits_NC, mask_C = network.head(features_NF), torch.from_numpy(mask)
    num_test = {"num_test": float(len(y_N))}
    if kind != "classes":
        predicted_NC = predictions_of(logits_NC, mask_C, kind).double().numpy()
        of_kind = label_scores if kind == "labels" else amount_scores
        return of_kind(predicted_NC, y_N.astype(np.float64)) | num_test
    predicted_N = predicted_classes(logits_NC, mask_C)
    return {
        "accuracy": float((predicted_N == y_N).mean()),
        "macro_f1": macro_f1(y_N, predicted_N),
        **num_test,
    }


def predicted_classes(logits_NC: Tensor, mask_C: Tensor) -> IntArray:
    """The class with the largest logit of those that the model knows."""
    predicted_N: IntArray = logits_NC.masked_fill(~mask_C, float("-inf")).argmax(1).numpy()
    return predicted_N


@torch.no_grad()
def noisy_scores(
    network: Network,
    mask: BoolArray,
    features_NF: Tensor,
    y_N: IntArray,
    release: Callable[[Mapping[str, tuple[Floats, float]]], Noisy],
) -> dict[str, float]:
    """As ``scores_of_test`` of classes, with a policy's noise.

    A replaced row moves the accuracy by 1 / N, and two cells of the confusion matrix, of which the
    macro-F1 is made, by 1. The model is taken as given: a test row was not trained on.
    """
    predicted_N = predicted_classes(network.head(features_NF), torch.from_numpy(mask))
    accuracy, confusion_CC = (predicted_N == y_N).mean(), confusion(y_N, predicted_N, len(mask))
    noisy = release({
        "accuracy": (np.array(accuracy), 1 / len(y_N)),
        "confusion": (confusion_CC.astype(np.float64), math.sqrt(2)),
    })  # fmt: skip
    return {
        "accuracy": float(noisy["accuracy"].clip(0, 1)),
        "macro_f1": _mean_f1(noisy["confusion"].clip(0)),
        "num_test": float(len(y_N)),
    }


def macro_f1(y_N: IntArray, predicted_N: IntArray) -> float:
    """Mean of 2 TP / (2 TP + FP + FN) over the classes that occur in either, as scikit-learn's,
    whose checks of its arguments take longer than a small model's test (0 to 1)."""
    return _mean_f1(confusion(y_N, predicted_N, int(max(y_N.max(), predicted_N.max())) + 1))


def confusion(y_N: IntArray, predicted_N: IntArray, num_classes: int) -> IntArray:
    """Numbers of rows by class and predicted class (C, C)."""
    pairs = np.bincount(y_N * num_classes + predicted_N, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def _mean_f1(confusion_CC: Floats | IntArray) -> float:
    total_C = confusion_CC.sum(0) + confusion_CC.sum(1)
    if not total_C.any():  # all of it was noise
        return 0.0
    score_C = 2 * confusion_CC.diagonal()[total_C > 0] / total_C[total_C > 0]
    return float(score_C.mean())


def label_scores(probability_NC: Floats, y_NC: Floats) -> dict[str, float]:
    """Scores of labels (0 to 1): macro-F1 of p > 1/2 over the labels that occur in either, the
    share of rows with every label right, and the mean average precision of labels that a row bears.
    """
    true_NC, predicted_NC = y_NC > 0, probability_NC > 0.5
    total_C = true_NC.sum(0) + predicted_NC.sum(0)
    hits_C = (true_NC & predicted_NC).sum(0)
    f1 = (2 * hits_C[total_C > 0] / total_C[total_C > 0]).mean() if total_C.any() else 1.0
    borne = np.flatnonzero(true_NC.any(0))
    precisions = [average_precision(probability_NC[:, c], true_NC[:, c]) for c in borne]
    return {
        "accuracy": float((true_NC == predicted_NC).all(1).mean()),
        "macro_f1": float(f1),
        "mean_average_precision": float(np.mean(precisions)) if precisions else 1.0,
    }


def average_precision(score_N: Floats, true_N: npt.NDArray[np.bool_]) -> float:
    """Sum of (recall_n - recall_n-1) precision_n over the distinct scores, highest first."""
    order_N = np.argsort(-score_N, kind="stable")
    last_of_ties = np.append(np.diff(score_N[order_N]) != 0, True)
    hits = true_N[order_N].cumsum()[last_of_ties]
    precision = hits / (np.flatnonzero(last_of_ties) + 1)
    return float((np.diff(hits, prepend=0) * precision).sum() / true_N.sum())


def amount_scores(predicted_NC: Floats, y_NC: Floats) -> dict[str, float]:
    """Means over amounts of R2 (at least -1e6; 1 or 0 for an amount that never varies) and of the
    absolute error in its own unit."""
    left_C = ((predicted_NC - y_NC) ** 2).sum(0)
    all_C = ((y_NC - y_NC.mean(0)) ** 2).sum(0)
    r2_C = np.where(all_C > 0, 1 - left_C / np.where(all_C > 0, all_C, 1), left_C == 0)
    error = float(np.abs(predicted_NC - y_NC).mean())
    return {"r2": float(np.maximum(r2_C, _LOWEST_R2).mean()), "mean_absolute_error": error}
