"""HAD: the frozen previous network pseudo-labels the old tasks on the new task's rows (B).

Published (CVPR 2026, arXiv 2603.26192), with I_j the teacher-student loss map of old task j:

    L = L_new + lambda / (2 (t - 1)) sum_j (L_db_j + L_sg_j)

L_db balances groups of pixels by geometric means; L_sg is the loss where its map has edges.
Ours: groups and edges are taken of each image by itself, groups that an image lacks are left out,
and the edge padding. ``benchmarks/had/reference.py`` has what the authors' code does instead.

Legend: B images, C outputs, H, W pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.config import TrainingConfig
from graft.lifelong.heads import HeadedNetwork, OutputKind, OutputTask
from graft.lifelong.retention import (
    LIFELONG_TRAINING,
    Retention,
    Stage,
    distillation_map,
    learn_stage,
    teacher_outputs,
)

_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class HadConfig:
    """``strength`` is lambda, ``split`` delta (0 to 1), ``salience`` k (0 to 1), as published."""

    strength: float = 3.0
    split: float = 0.5
    salience: float = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Distillation(Retention):
    """HAD's penalty."""

    config: HadConfig = HadConfig()

    def penalty(
        self, student: HeadedNetwork, teacher: HeadedNetwork, x: Tensor, features: Tensor
    ) -> Tensor:
        """lambda / (2 (t - 1)) sum over old tasks of (L_db + L_sg)."""
        losses = [
            had_loss(
                teacher.tasks[name].kind, student.output(features, name), soft_targets, self.config
            )
            for name, soft_targets in teacher_outputs(teacher, x).items()
        ]
        return self.config.strength / (2 * len(losses)) * torch.stack(losses).sum()


def grow_task(
    network: HeadedNetwork,
    task: OutputTask,
    x: Tensor,
    target: Tensor,
    *,
    seed: int,
    config: HadConfig | None = None,
    training: TrainingConfig = LIFELONG_TRAINING,
) -> HeadedNetwork:
    """A domain's model with one more output, its old heads kept: a later round's new task.

    ``headed`` makes the first such network of a zoo classifier that an expansion left on the
    device. x (N, ...) and ``target`` are the new task's rows alone; on them the model as it was
    pseudo-labels every old task, and no old row is needed. In a vector task a sample is one
    pixel and a batch one image, so that groups are balanced over the batch; samples have
    no neighbours, so L_sg is left out (ours).
    """
    retention = Distillation(config=config or HadConfig())
    return learn_stage(network, Stage(task=task, x=x, target=target), retention, training, seed)


def had_loss(kind: OutputKind, output: Tensor, soft_targets: Tensor, config: HadConfig) -> Tensor:
    """L_db + L_sg of one old task; outputs are (B, C, H, W), or (B, C) with L_db alone."""
    is_vector = output.dim() == 2
    if is_vector:
        output, soft_targets = as_image(output), as_image(soft_targets)
    loss_BHW = distillation_map(kind, output, soft_targets)
    group_BHW, num_groups = pixel_groups(kind, soft_targets, config.split)
    balanced = balanced_loss(loss_BHW, group_BHW, num_groups)
    return balanced if is_vector else balanced + salient_loss(loss_BHW, config.salience)


def as_image(output_BC: Tensor) -> Tensor:
    """A batch of vectors as one image, one pixel a sample: (1, C, 1, B)."""
    return output_BC.T[None, :, None]


def pixel_groups(kind: OutputKind, soft_targets: Tensor, split: float) -> tuple[Tensor, int]:
    """Each pixel's group (B, H, W), and how many there are: the teacher's classes, or low and high.

    High: the teacher's channel mean, min-max scaled to 0 to 1 in each image, is ``split`` or
    more; where it is the same everywhere all pixels are low.
    """
    if kind == "classes":
        return soft_targets.argmax(1), soft_targets.shape[1]
    return (_min_max(soft_targets.mean(1)) >= split).long(), 2


def balanced_loss(loss_BHW: Tensor, group_BHW: Tensor, num_groups: int) -> Tensor:
    """L_db: mean over a image's groups of exp(mean over a group's pixels of log(I + 1e-3)).

    Groups that a image lacks are left out; mean over the images.
    """
    pixels_BGHW = F.one_hot(group_BHW, num_groups).movedim(-1, 1).to(loss_BHW.dtype)
    size_BG = pixels_BGHW.sum((2, 3))
    log_BHW = (loss_BHW + _FLOOR).log()
    mean_BG = (pixels_BGHW * log_BHW[:, None]).sum((2, 3)) / size_BG.clamp_min(1)
    present_BG = size_BG > 0
    return ((mean_BG.exp() * present_BG).sum(1) / present_BG.sum(1)).mean()


def salient_loss(loss_BHW: Tensor, salience: float) -> Tensor:
    """L_sg: mean of I over the pixels whose loss gradient is above ``salience``; mean over B.

    A image without such pixels (a constant loss map) gives 0.
    """
    salient_BHW = salient_pixels(loss_BHW, salience, pad_mode="replicate").to(loss_BHW.dtype)
    size_B = salient_BHW.sum((1, 2)).clamp_min(1)
    return ((salient_BHW * loss_BHW).sum((1, 2)) / size_B).mean()


@torch.no_grad()
def salient_pixels(loss_BHW: Tensor, salience: float, pad_mode: str) -> Tensor:
    """Where the 3x3 Sobel magnitude of a loss map, min-max scaled a image, is above a threshold.

    The choice itself takes no gradient. Replicated borders ("replicate") make no edges of their
    own, zeros ("constant") do.
    """
    across_33 = loss_BHW.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([across_33, across_33.T])[:, None]
    slopes_B2HW = F.conv2d(F.pad(loss_BHW[:, None], (1, 1, 1, 1), mode=pad_mode), kernels)
    return _min_max(slopes_B2HW.square().sum(1).sqrt()) > salience


def _min_max(map_BHW: Tensor) -> Tensor:
    """Each image scaled to 0 to 1; zeros where it is constant."""
    low_B, high_B = map_BHW.amin((1, 2), keepdim=True), map_BHW.amax((1, 2), keepdim=True)
    span_B = high_B - low_B
    return torch.where(span_B > 0, (map_BHW - low_B) / span_B.clamp_min(1e-12), 0.0)
