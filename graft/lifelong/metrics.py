"""How good dense predictions are, and what a method gains over naive sequential training.

Legend: N images, H, W pixels, K classes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from graft.lifelong.heads import IGNORED, OutputTask

# Each metric's sign: +1 where more is better, -1 where less is.
METRIC_SIGNS: Mapping[str, Mapping[str, int]] = {
    "classes": {"miou": 1, "pixel_accuracy": 1},
    "amount": {"absolute_error": -1, "relative_error": -1},
    "direction": {
        "mean_angle": -1,
        "median_angle": -1,
        "within_11.25": 1,
        "within_22.5": 1,
        "within_30": 1,
    },
}
Scores = Mapping[str, Mapping[str, float]]


def score_task(task: OutputTask, output: Tensor, target: Tensor) -> dict[str, float]:
    """The task kind's metrics of outputs (N, C, ...), over all pixels whose target is known."""
    if task.kind == "classes":
        return segmentation_scores(output.argmax(1), target, task.num_outputs)
    if task.kind == "amount":
        return amount_scores(output, target)
    return direction_scores(output, target)


def segmentation_scores(
    label_NHW: Tensor, target_NHW: Tensor, num_classes: int
) -> dict[str, float]:
    """Mean IoU over the classes that prediction or target show, and pixel accuracy, 0 to 1."""
    known = target_NHW != IGNORED
    pairs = num_classes * target_NHW[known] + label_NHW[known]
    confusion_KK = torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, -1)
    hits_K = confusion_KK.diag().double()
    union_K = (confusion_KK.sum(0) + confusion_KK.sum(1)).double() - hits_K
    seen_K = union_K > 0
    return {
        "miou": float((hits_K[seen_K] / union_K[seen_K]).mean()),
        "pixel_accuracy": float(hits_K.sum() / confusion_KK.sum()),
    }


def amount_scores(output: Tensor, target: Tensor) -> dict[str, float]:
    """Mean |error| in the target's unit, and mean |error| / target."""
    known = target != 0
    wanted = target[known].double()
    error = (output[known].double() - wanted).abs()
    return {"absolute_error": float(error.mean()), "relative_error": float((error / wanted).mean())}


def direction_scores(output: Tensor, target: Tensor) -> dict[str, float]:
    """Mean and median angle in degrees, and the shares (0 to 1) under 11.25, 22.5, 30 degrees."""
    known = (target != 0).any(1)
    cosine = (output.double() * target.double()).sum(1)[known]
    angle_deg = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    shares = {f"within_{limit:g}": float((angle_deg < limit).double().mean())
              for limit in (11.25, 22.5, 30)}  # fmt: skip
    return {
        "mean_angle": float(angle_deg.mean()),
        "median_angle": float(angle_deg.median()),
        **shares,
    }


def relative_gain(tasks: Mapping[str, OutputTask], scores: Scores, naive: Scores) -> float:
    """Delta: mean over tasks of the mean over their metrics of the signed gain over naive.

    0.1 is a tenth better than naive sequential training. Each task counts the same, however
    many metrics it has (ours: the paper's abstract leaves the order of the means open).
    """
    gains = []
    for name, task in tasks.items():
        signs = METRIC_SIGNS[task.kind]
        gains.append(
            sum(
                sign * (scores[name][metric] - naive[name][metric]) / naive[name][metric]
                for metric, sign in signs.items()
            )
            / len(signs)
        )
    return sum(gains) / len(gains)
