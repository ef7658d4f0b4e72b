"""Learning one output after the other with one trunk, and the remedies against forgetting.

A stage brings images (or samples) with the targets of one task only; nothing of earlier stages
remains but the network. A ``Retention`` preserves the old tasks: none (naive sequential), LwF,
EWC, or HAD in its own file.

Legend: N, B samples, C outputs, H, W pixels; vector tasks lack H and W.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.config import TrainingConfig
from graft.core.seeding import derive_seed
from graft.core.streams import Rows
from graft.lifelong.heads import IGNORED, HeadedNetwork, OutputKind, OutputTask
from graft.training import minimise, parameter_group

# HAD's published schedule; LwF and EWC take the same. Nothing but the epochs ends a stage.
LIFELONG_TRAINING = TrainingConfig(
    epochs=20, max_steps=10**9, batch_size=64, learning_rate=1e-4, weight_decay=1e-5
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stage:
    """One task's rows: inputs x (N, ...) and their targets as the task's kind has them."""

    task: OutputTask
    x: Rows
    target: Tensor


class Retention:
    """How old tasks are preserved while a new one is learnt; by itself (naive), not at all."""

    def penalty(
        self, student: HeadedNetwork, teacher: HeadedNetwork, x: Tensor, features: Tensor
    ) -> Tensor:
        """What is added to the new task's loss on a batch x, whose student features are given.

        ``teacher`` is the network before this stage, frozen and in eval mode; its tasks are
        the old ones. Not called in the first stage.
        """
        return features.new_zeros(())

    def after_stage(self, network: HeadedNetwork, stage: Stage) -> None:
        """Store what the method needs of a finished stage; its rows are gone afterwards."""


def new_task_loss(kind: OutputKind, output: Tensor, target: Tensor) -> Tensor:
    """L_new (published): cross-entropy without ignored pixels; L1 where the target is not 0;
    1 - mean dot product where the target is not the zero vector.

    All-unknown targets give 0 for classes and amounts, 1 for directions, without a gradient.
    """
    if kind == "classes":
        known = (target != IGNORED).sum().clamp_min(1)
        return F.cross_entropy(output, target, ignore_index=IGNORED, reduction="sum") / known
    known_map = (target != 0).any(1)
    num_known = known_map.sum().clamp_min(1)
    if kind == "amount":
        return ((output - target).abs().mean(1) * known_map).sum() / num_known
    return 1 - ((output * target).sum(1) * known_map).sum() / num_known


def learn_stage(
    network: HeadedNetwork, stage: Stage, retention: Retention, training: TrainingConfig, seed: int
) -> HeadedNetwork:
    """The network with one more task, learnt from the stage's rows alone; in eval mode.

    The given network is unchanged: it is the frozen teacher of its own tasks.
    """
    teacher = copy.deepcopy(network).eval().requires_grad_(False)
    student = network.with_head(stage.task, derive_seed("head", stage.task.name, seed)).train()

    def loss_of(rows_B: Tensor, _: Tensor) -> Tensor:
        x = stage.x[rows_B]
        features = student.features(x)
        output = student.output(features, stage.task.name)
        loss = new_task_loss(stage.task.kind, output, stage.target[rows_B])
        if not teacher.tasks:
            return loss
        return loss + retention.penalty(student, teacher, x, features)

    groups = [parameter_group(student, training.learning_rate)]
    minimise(
        loss_of, groups, len(stage.x), 0, training, derive_seed("stage", len(teacher.tasks), seed)
    )
    student.eval()
    retention.after_stage(student, stage)
    return student


@torch.no_grad()
def predict_outputs(network: HeadedNetwork, x: Tensor, batch_size: int = 64) -> dict[str, Tensor]:
    """Every head's output for all rows, in eval mode, by task name."""
    network.eval()
    parts = [network(x[first : first + batch_size]) for first in range(0, len(x), batch_size)]
    return {name: torch.cat([part[name] for part in parts]) for name in network.tasks}


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningWithoutForgetting(Retention):
    """LwF (published for classes): the old heads are trained to keep their outputs on new rows.

    L = L_new + ``strength`` mean over old tasks of the mean over pixels of: cross-entropy
    against the teacher's probabilities at ``temperature``, |difference| for amounts, 1 - dot for
    directions (the latter two ours). With temperature 0 the teacher's most likely class counts
    alone, as in HAD.
    """

    strength: float = 1.0
    temperature: float = 2.0

    def penalty(
        self, student: HeadedNetwork, teacher: HeadedNetwork, x: Tensor, features: Tensor
    ) -> Tensor:
        losses = []
        for name, soft_targets in teacher_outputs(teacher, x).items():
            output, kind = student.output(features, name), teacher.tasks[name].kind
            if kind == "classes":
                losses.append(self._class_loss(output, soft_targets))
            else:
                losses.append(distillation_map(kind, output, soft_targets).mean())
        return self.strength * torch.stack(losses).mean()

    def _class_loss(self, output: Tensor, soft_targets: Tensor) -> Tensor:
        if self.temperature == 0:
            return distillation_map("classes", output, soft_targets).mean()
        wanted = torch.softmax(soft_targets / self.temperature, dim=1)
        # The square keeps the gradient's size whatever the temperature (Hinton's scaling).
        return self.temperature**2 * F.cross_entropy(output / self.temperature, wanted)


class ElasticWeights(Retention):
    """EWC (published): trunk weights stay near old values where old losses depend on them.

    penalty = ``strength`` / 2 sum over old stages and parameters of F (theta - theta*)^2, F the
    mean squared gradient of the stage's own loss over ``num_samples`` of its rows, one at a time
    (the empirical diagonal Fisher). Old heads need no term: the new loss does not reach them.
    """

    def __init__(self, strength: float, num_samples: int = 64) -> None:
        self.strength = strength
        self.num_samples = num_samples
        self.anchors: list[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]] = []

    def penalty(
        self, student: HeadedNetwork, teacher: HeadedNetwork, x: Tensor, features: Tensor
    ) -> Tensor:
        total = features.new_zeros(())
        for fisher, anchor in self.anchors:
            for name, parameter in student.trunk.named_parameters():
                moved = (fisher[name] * (parameter - anchor[name]) ** 2).sum()
                total = total + moved.to(features.device)  # a trunk may be on an accelerator
        return self.strength / 2 * total

    def after_stage(self, network: HeadedNetwork, stage: Stage) -> None:
        anchor = {name: p.detach().clone() for name, p in network.trunk.named_parameters()}
        self.anchors.append((diagonal_fisher(network, stage, self.num_samples), anchor))


def diagonal_fisher(network: HeadedNetwork, stage: Stage, num_samples: int) -> dict[str, Tensor]:
    """Mean squared gradient of the stage's loss for each trunk parameter, over its first rows."""
    parameters = dict(network.trunk.named_parameters())
    fisher = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    num_samples = min(num_samples, len(stage.x))
    for row in range(num_samples):
        output = network.output(network.features(stage.x[row : row + 1]), stage.task.name)
        loss = new_task_loss(stage.task.kind, output, stage.target[row : row + 1])
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        for name, gradient in zip(parameters, gradients, strict=True):
            fisher[name] += gradient**2 / num_samples
    return fisher


def teacher_outputs(teacher: HeadedNetwork, x: Tensor) -> dict[str, Tensor]:
    """The frozen teacher's outputs on the new rows, by old task: the pseudo-labels."""
    with torch.no_grad():
        outputs: dict[str, Tensor] = teacher(x)
    return outputs


def distillation_map(kind: OutputKind, output: Tensor, soft_targets: Tensor) -> Tensor:
    """I (published): teacher-student loss of each pixel, (B, H, W) or (B).

    Negative log-likelihood of the teacher's most likely class; |difference| averaged over the
    channels; 1 - dot product.
    """
    if kind == "classes":
        return F.cross_entropy(output, soft_targets.argmax(1), reduction="none")
    if kind == "amount":
        return (output - soft_targets).abs().mean(1)
    return 1 - (output * soft_targets).sum(1)
