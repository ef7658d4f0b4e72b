"""HAD: the frozen previous network pseudo-labels the old tasks on the new task's rows (B).

Published (CVPR 2026, arXiv 2603.26192), with I_j the teacher-student loss map of old task j:

    L = L_new + lambda / (2 (t - 1)) sum_j (L_db_j + L_sg_j)

L_db balances groups of pixels by geometric means; L_sg is the loss where its map has edges.
Ours: groups and edges are taken of each image by itself, groups that an image lacks are left out,
and the edge padding. The authors' released code differs: the losses of ``released_loss``, and no
division by t - 1.

Legend: B images, C outputs, H, W pixels.
"""

from dataclasses import dataclass
from typing import Literal

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
    """``strength`` is lambda, ``split`` delta (0 to 1), ``salience`` k (0 to 1), as published.

    ``variant``: the losses of the paper, or those of the authors' released code.
    """

    variant: Literal["paper", "released"] = "paper"

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
        """lambda / (2 (t - 1)) sum over old tasks of (L_db + L_sg); released, without t - 1."""
        is_paper = self.config.variant == "paper"
        loss_of = had_loss if is_paper else released_loss
        losses = [
            loss_of(
                teacher.tasks[name].kind, student.output(features, name), soft_targets, self.config
            )
            for name, soft_targets in teacher_outputs(teacher, x).items()
        ]
        divisor = 2 * len(losses) if is_paper else 2
        return self.config.strength / divisor * torch.stack(losses).sum()


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


def released_loss(
    kind: OutputKind, output: Tensor, soft_targets: Tensor, config: HadConfig
) -> Tensor:
    """L_db + L_sg of one old task as released, as ``had_loss`` has it."""
    if output.dim() == 2:
        return released_balance(kind, as_image(output), as_image(soft_targets), config)
    balanced = released_balance(kind, output, soft_targets, config)
    return balanced + released_salience(kind, output, soft_targets, config)


def released_balance(
    kind: OutputKind, output: Tensor, soft_targets: Tensor, config: HadConfig
) -> Tensor:
    """L_db as released. Groups are pooled over the batch.

    classes: geometric means l_c of the pixels with a loss, absent classes 0; mean over all
    classes of softmax_c(-l)_c l_c, the softmax without a gradient. Others: arithmetic means, the
    *student's* channel mean below and above ``split`` unscaled, added; for directions 1 - the
    mean over pixels *and channels* of the products, 1 where a group is empty.
    """
    if kind == "classes":
        return _class_balance(distillation_map(kind, output, soft_targets), soft_targets)
    level = output.detach().mean(1)
    groups = (level > config.split, level < config.split)
    if kind == "amount":
        loss = distillation_map(kind, output, soft_targets)
        return torch.stack([_mean_where(loss, group) for group in groups]).sum()
    product = (output * soft_targets).mean(1)
    return torch.stack([1 - _mean_where(product, group) for group in groups]).sum()


def _class_balance(loss: Tensor, soft_targets: Tensor) -> Tensor:
    """Mean over classes of softmax_c(-l)_c l_c."""
    label = soft_targets.argmax(1)
    log_loss = loss.clamp_min(1e-12).log()
    means = []
    for index in range(soft_targets.shape[1]):
        pixels = (label == index) & (loss > 0)
        means.append(_mean_where(log_loss, pixels).exp() * pixels.any())
    loss_C = torch.stack(means)
    return (torch.softmax(-loss_C.detach(), dim=0) * loss_C).mean()


def released_salience(
    kind: OutputKind, output: Tensor, soft_targets: Tensor, config: HadConfig
) -> Tensor:
    """L_sg as released, with zero padding.

    classes: the salient pixels' losses over the number of all pixels. amount: their mean.
    directions: edges are sought in 1 - the channel mean of the products, and the loss is 1 -
    (the products of *all* pixels) / (3 times the salient pixels), which is negative as soon as
    the salient ones are few; 1 where there are none.
    """
    if kind != "direction":
        loss = distillation_map(kind, output, soft_targets)
        salient = salient_pixels(loss, config.salience, pad_mode="constant")
        return _mean_where(loss, salient) if kind == "amount" else (loss * salient).mean()
    product = output * soft_targets
    salient = salient_pixels(1 - product.mean(1), config.salience, pad_mode="constant")
    num_salient = salient.sum() * product.shape[1]
    if num_salient == 0:
        return product.new_ones(())
    return 1 - product.sum() / num_salient


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values; 0 where there are none."""
    return (values * chosen).sum() / chosen.sum().clamp_min(1)
