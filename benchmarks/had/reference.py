"""What HAD is compared with, joint training, and the scores.

Legend: N, B images, C outputs, H, W pixels, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from graft.core.config import TrainingConfig
from graft.core.seeding import derive_seed
from graft.lifelong.heads import IGNORED, HeadedNetwork, OutputTask
from graft.lifelong.retention import Stage, new_task_loss
from graft.training import minimise, parameter_group

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


def learn_jointly(
    network: HeadedNetwork, stages: Sequence[Stage], training: TrainingConfig, seed: int
) -> HeadedNetwork:
    """All tasks at once, each from its own stage's rows: an upper bound for any sequence.

    Each step takes an equal part of its batch from every stage and adds the losses: as many
    steps, and as many passes over each task's rows, as the whole sequence takes.
    """
    for stage in stages:
        network = network.with_head(stage.task, derive_seed("head", stage.task.name, seed))
    student = network.train()

    def loss_of(rows_B: Tensor, _: Tensor) -> Tensor:
        losses = []
        for stage in stages:
            rows = rows_B % len(stage.x)
            output = student.output(student.features(stage.x[rows]), stage.task.name)
            losses.append(new_task_loss(stage.task.kind, output, stage.target[rows]))
        return torch.stack(losses).sum()

    groups = [parameter_group(student, training.learning_rate)]
    longest = max(len(stage.x) for stage in stages)
    shared = replace(training, batch_size=max(1, training.batch_size // len(stages)))
    minimise(loss_of, groups, longest, 0, shared, derive_seed("joint", seed))
    return student.eval()


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
