"""What the labels and U give without a fusion of sources: the baselines that a reviewer asks for.

All share the recipe of ``graft``: its augmentation, its learning rate with its warm-up and cosine,
and batch-norm statistics of all rows at the end; they take the usual number of steps, three times
those of ``graft``. A step has a labelled and an unlabelled batch of the same size.

- label-only-recipe: L = CE(L).
- pseudo-label (Lee, ICML 2013 workshop). Published: L = CE(L) + a(t) CE(U, argmax p), a(t) from 0
  to 3 in a line. Ours: the line runs from a sixth of the steps to their end.
- fixmatch (NeurIPS 2020). Published: L = CE(L) + mean 1[max p(weak(u)) >= 0.95] CE(p(strong(u)),
  argmax p(weak(u))). Ours: weak is the recipe's augmentation; strong is that twice, a scale a
  channel, noise, and a quarter of each sample masked.
- mean-teacher (NeurIPS 2017). Published: L = CE(L) + w(t) ||p(x) - p_teacher(x')||^2, the teacher a
  moving average of the student with the decay min(1 - 1/(t + 1), 0.99), w(t) rising as
  exp(-5 (1 - t)^2). Ours: w is 10 at most, and is reached after a third of the steps.
- fedavg-fixmatch, fedavg-shot: FixMatch and SHOT from the average model of the initial domains.
- label-spreading (Zhou et al., NeurIPS 2004), alpha 0.99 as published, over the features of the
  source that is best on L; ours: the target learns the spread labels of U.
- pooled-reference: no method that may be used. One model of the target's architecture is trained on
  the rows of all initial domains together, and then adapted and distilled as ``graft`` does it.

Legend: L labelled, U unlabelled, N all rows, B a batch, C classes.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.seeding import derive_seed
from graft.core.streams import Rows, Streams, concat
from graft.errors import ConfigError
from graft.methods.base import Method, each_compiled
from graft.methods.blocks import adaptation, fusion, targets
from graft.methods.cost import consistency_cost, distilled_cost, shot_cost
from graft.methods.graft import fit_graft
from graft.methods.source_free import fit_shot
from graft.models import Network
from graft.training import (
    Augmentation,
    SoftTraining,
    TrainedModel,
    TrainingTask,
    count_steps,
    features_in_batches,
    minimise,
    parameter_group,
    train_soft,
)

CONFIDENCE = 0.95
PSEUDO_LABEL_WEIGHT = 3.0
CONSISTENCY_WEIGHT = 10.0
TEACHER_DECAY = 0.99
SPREADING_ALPHA = 0.99
_MASKED = 0.25
_NOISE = 0.1
_SCALE = 0.2

# From a labelled and an unlabelled batch of rows and the step, to a loss.
RecipeLoss = Callable[[Tensor, Tensor, int], Tensor]
AfterStep = Callable[[int], None]


class Recipe:
    """A network's training on a task with the recipe that these baselines share."""

    def __init__(self, task: TrainingTask, network: Network) -> None:
        self.task = task
        self.network = network
        self.steps = count_steps(len(task.x_L) + len(task.x_U), task.config.training)[1]
        self._generator = torch.Generator().manual_seed(derive_seed("augment", task.seed))

    def weak(self, x: Rows) -> Any:
        """The augmentation of ``graft``."""
        inputs, config = self.task.domain_task.inputs, self.task.config.graft
        return targets.augment_rows(x, inputs, config, self._generator)

    def strong(self, x: Rows) -> Any:
        """``weak`` twice, then a scale a channel, noise, and a quarter of each sample masked."""
        x = self.weak(self.weak(x))
        return x.apply(self._distorted) if isinstance(x, Streams) else self._distorted(x[:])

    def _distorted(self, x: Tensor) -> Tensor:
        if not x.is_floating_point() or x.dim() < 3:
            return x
        scale = 1 + _SCALE * self._normal((*x.shape[:2], *[1] * (x.dim() - 2)))
        x = x * scale + _NOISE * x.std() * self._normal(tuple(x.shape))
        masked = torch.ones_like(x[:, :1], dtype=torch.bool)
        for axis in range(2, x.dim()):  # a stretch of time, or a rectangle
            length = x.shape[axis]
            wide = max(1, round(length * _MASKED ** (1 / (x.dim() - 2))))
            first_B = torch.randint(0, length - wide + 1, (len(x),), generator=self._generator)
            past_BT = torch.arange(length) - first_B[:, None]
            shape = [len(x), *[1] * (x.dim() - 1)]
            shape[axis] = length
            masked = masked & ((past_BT >= 0) & (past_BT < wide)).view(shape)
        return x.masked_fill(masked, 0.0)

    def train(self, loss_of: RecipeLoss, after_step: AfterStep = lambda step: None) -> None:
        """Minimise the loss; ``after_step`` is called before each next step with its number."""
        task, settings, step = self.task, self.task.config.graft, 0

        def step_loss(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
            nonlocal step
            after_step(step)
            step += 1
            return loss_of(labelled_B, unlabelled_B, step - 1)

        self.network.train()
        groups = [parameter_group(self.network, settings.learning_rate)]
        rows = len(task.x_L), len(task.x_U)
        minimise(step_loss, groups, *rows, task.config.training, task.seed, rate=self.rate)

    def train_on_labels(self) -> None:
        """Minimise the cross-entropy on L alone, compiled where the task may be."""
        task, settings = self.task, self.task.config.graft

        def draw(size: int, steps: int) -> Augmentation:
            batch = task.x_L[:1].expand(size, *task.domain_task.sample_shape)
            return targets.augmentation_draws(
                batch, steps, task.domain_task.modality, settings, self._generator
            )

        if task.compiled and isinstance(task.x_L, Tensor):
            config = replace(
                task.config.training,
                epochs=self.steps, max_steps=self.steps, learning_rate=settings.learning_rate,
            )  # fmt: skip
            soft = SoftTraining(
                network=self.network, x_L=task.x_L, y_L=task.y_L, x_U=task.x_U[:0],
                soft_targets_UC=torch.zeros(0, task.domain_task.num_classes), config=config,
                seed=task.seed, rate=self.rate, augment=draw,
            )  # fmt: skip
            if train_soft(soft):
                return
        self.train(lambda labelled_B, _, __: self.supervised(labelled_B))

    def rate(self, step: int) -> float:
        """As ``graft``: up over the first tenth of the steps, then down to zero along a cosine."""
        risen = min(1.0, 10 * (step + 1) / self.steps)
        return risen * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def finished(self, network: Network) -> Network:
        """The network with batch-norm statistics of all rows."""
        x_N = concat([self.task.x_L, self.task.x_U])
        adaptation.renormalise(network, x_N, compiled=self.task.compiled)
        return network

    def supervised(self, labelled_B: Tensor) -> Tensor:
        """Cross-entropy on augmented labelled rows."""
        logits_BC = self.network(self.weak(self.task.x_L[labelled_B]))
        return F.cross_entropy(logits_BC, self.task.y_L[labelled_B])

    def _normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self._generator)


def _own(task: TrainingTask, network: Network) -> TrainedModel:
    return targets.trained_target(task, network, task.label_mask, used=())


def fit_recipe(task: TrainingTask) -> TrainedModel:
    """Train on L alone, with the recipe."""
    recipe = Recipe(task, targets.fresh_target(task))
    recipe.train_on_labels()
    return _own(task, recipe.finished(recipe.network))


def fit_pseudo_label(task: TrainingTask) -> TrainedModel:
    """Lee's pseudo-labels: U is labelled by the network itself, more and more."""
    recipe, unknown_C = Recipe(task, targets.fresh_target(task)), ~torch.from_numpy(task.label_mask)

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor, step: int) -> Tensor:
        x = recipe.weak(concat([task.x_L[labelled_B], task.x_U[unlabelled_B]]))
        logits_BC, split = recipe.network(x), len(labelled_B)
        supervised = F.cross_entropy(logits_BC[:split], task.y_L[labelled_B])
        if split == len(x):
            return supervised
        own_B = logits_BC[split:].detach().masked_fill(unknown_C, float("-inf")).argmax(1)
        begun = max(0.0, (step / recipe.steps - 1 / 6) * 6 / 5)
        return supervised + PSEUDO_LABEL_WEIGHT * begun * F.cross_entropy(logits_BC[split:], own_B)

    recipe.train(loss_of)
    return _own(task, recipe.finished(recipe.network))


def fit_fixmatch(task: TrainingTask, start: Network | None = None) -> TrainedModel:
    """FixMatch on L and U, from a fresh network or from ``start``."""
    recipe = Recipe(task, targets.fresh_target(task) if start is None else start)
    unknown_C = ~torch.from_numpy(task.label_mask)

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor, _: int) -> Tensor:
        x_U, split = task.x_U[unlabelled_B], len(labelled_B)
        # One pass, so that batch norm sees labelled and unlabelled rows alike.
        x = concat([recipe.weak(concat([task.x_L[labelled_B], x_U])), recipe.strong(x_U)])
        logits_BC = recipe.network(x)
        supervised = F.cross_entropy(logits_BC[:split], task.y_L[labelled_B])
        if not len(x_U):
            return supervised
        weak_BC = logits_BC[split : split + len(x_U)].detach().masked_fill(unknown_C, float("-inf"))
        sure_B, own_B = torch.softmax(weak_BC, dim=1).max(1)
        loss_B = F.cross_entropy(logits_BC[split + len(x_U) :], own_B, reduction="none")
        return supervised + (loss_B * (sure_B >= CONFIDENCE)).mean()

    recipe.train(loss_of)
    return _own(task, recipe.finished(recipe.network))


def fit_mean_teacher(task: TrainingTask) -> TrainedModel:
    """Mean Teacher: the model is the teacher, the moving average of the student's parameters."""
    recipe = Recipe(task, targets.fresh_target(task))
    teacher = copy.deepcopy(recipe.network).requires_grad_(False)

    def follow(step: int) -> None:
        decay = min(1 - 1 / (step + 1), TEACHER_DECAY)
        with torch.no_grad():
            for mean, own in zip(teacher.parameters(), recipe.network.parameters(), strict=True):
                mean.lerp_(own, 1 - decay)

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor, step: int) -> Tensor:
        x = concat([task.x_L[labelled_B], task.x_U[unlabelled_B]])
        logits_BC = recipe.network(recipe.weak(x))
        with torch.no_grad():
            wanted_BC = torch.softmax(teacher(recipe.weak(x)), dim=1)
        gap = (torch.softmax(logits_BC, dim=1) - wanted_BC).square().sum(1).mean()
        risen = min(1.0, 3 * step / recipe.steps)
        weight = CONSISTENCY_WEIGHT * math.exp(-5 * (1 - risen) ** 2)
        split = len(labelled_B)
        return F.cross_entropy(logits_BC[:split], task.y_L[labelled_B]) + weight * gap

    recipe.train(loss_of, follow)
    follow(recipe.steps)
    return _own(task, recipe.finished(teacher))


def fit_fedavg_fixmatch(task: TrainingTask) -> TrainedModel:
    """FixMatch from the average model of the target's architecture, or from nothing."""
    if task.average is None:
        return fit_fixmatch(task)
    trained = fit_fixmatch(task, copy.deepcopy(task.average.network))
    mask_C = task.average.mask_C | task.label_mask
    return replace(trained, mask_C=mask_C, used=(task.average,))


def fit_fedavg_shot(task: TrainingTask) -> TrainedModel:
    """SHOT from the average model of the target's architecture; without one, the recipe on L."""
    if task.average is None:
        return fit_recipe(task)
    return fit_shot(replace(task, sources=(task.average,)))


def fit_label_spreading(task: TrainingTask) -> TrainedModel:
    """Spread L over a graph of the best source's features; the target learns what came to U."""
    best = targets.best_source(task)
    x_N = concat([task.x_L, task.x_U])
    with adaptation.renormalised(best.network, x_N):
        features_NF = features_in_batches(best.network, x_N)
    unit_NF = fusion.joint_features(features_NF[None])
    graph = fusion.neighbour_graph(unit_NF, task.config.graft.num_neighbours)
    # What no label reaches keeps the same small chance of each class that L has.
    start_NC = 1e-6 * torch.from_numpy(task.label_mask).float().repeat(len(x_N), 1)
    start_NC[: len(task.y_L)] += F.one_hot(task.y_L, start_NC.shape[1])
    spread_NC = fusion.propagate(start_NC, graph, SPREADING_ALPHA, steps=200)
    soft_UC = spread_NC[len(task.x_L) :]
    recipe = Recipe(task, targets.fresh_target(task))

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor, _: int) -> Tensor:
        x = recipe.weak(concat([task.x_L[labelled_B], task.x_U[unlabelled_B]]))
        logits_BC, split = recipe.network(x), len(labelled_B)
        supervised = F.cross_entropy(logits_BC[:split], task.y_L[labelled_B])
        return supervised + targets.kd_loss(logits_BC[split:], soft_UC[unlabelled_B])

    recipe.train(loss_of)
    return targets.trained_target(
        task, recipe.finished(recipe.network), task.label_mask, used=(best,)
    )


def fit_pooled_reference(task: TrainingTask) -> TrainedModel:
    """What ``graft`` makes of one model of all initial domains' rows; raises ConfigError where the
    device has none, as every real device."""
    if task.pooled is None:
        raise ConfigError("pooled-reference: got no pooled rows, wanted a simulation")
    trained = fit_graft(replace(task, sources=(task.pooled,)))
    return replace(trained, used=(), diagnostics=None)


_alone = partial(Method, sources_needed="none", reads=("graft",))
METHODS = (
    _alone(
        name="label-only-recipe", title="Label only, graft's recipe", fit=fit_recipe,
        fit_many=each_compiled(fit_recipe), cost=consistency_cost,
    ),
    _alone(
        name="pseudo-label", title="Pseudo-labels", fit=fit_pseudo_label, cost=consistency_cost
    ),
    _alone(name="fixmatch", title="FixMatch", fit=fit_fixmatch, cost=consistency_cost),
    _alone(name="mean-teacher", title="Mean Teacher", fit=fit_mean_teacher, cost=consistency_cost),
    _alone(
        name="fedavg-fixmatch", title="FedAvg, then FixMatch", fit=fit_fedavg_fixmatch,
        needs_average=True, cost=consistency_cost,
    ),
    _alone(
        name="fedavg-shot", title="FedAvg, then SHOT", fit=fit_fedavg_shot, needs_average=True,
        cost=shot_cost,
    ),
    Method(
        name="label-spreading", title="Label spreading", fit=fit_label_spreading,
        sources_needed="selected", precision="base", reads=("graft",), cost=distilled_cost,
    ),
    _alone(
        name="pooled-reference", title="All initial domains' rows (reference)",
        fit=fit_pooled_reference, is_reference=True, cost=consistency_cost,
    ),
)  # fmt: skip
