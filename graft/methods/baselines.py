"""The baselines beside the main method: what a person would do without fusing sources (E).

Legend: L labelled, U unlabelled, N all rows, C classes.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from graft.core.records import BoolArray
from graft.core.streams import concat
from graft.methods.base import INITIAL, OUTPUTS, Method
from graft.methods.blocks import targets
from graft.methods.cost import all_labels_cost, best_source_cost, finetuned_cost, supervised_cost
from graft.models import Network
from graft.training import (
    Source,
    SupervisedTraining,
    TrainedModel,
    TrainingTask,
    known_outputs,
    train_supervised,
    train_supervised_many,
)

Plan = Callable[[TrainingTask], SupervisedTraining]


def plan_label_only(task: TrainingTask) -> SupervisedTraining:
    """Train on L alone."""
    return on_labels(task, targets.fresh_target(task), task.label_mask)


def plan_all_labels(task: TrainingTask) -> SupervisedTraining:
    """Train on every row with its true label: the reference, and an initial domain's training."""
    y_N = torch.cat([task.y_L, task.hidden_y_U])
    mask_C = known_outputs(y_N, task.domain_task.num_classes, task.output)
    training = on_labels(task, targets.fresh_target(task), mask_C)
    return replace(training, x=concat([task.x_L, task.x_U]), y_N=y_N)


def fit_best_source(task: TrainingTask) -> TrainedModel:
    """Take the source that is best on L, unchanged."""
    best = targets.best_source(task)
    return TrainedModel(
        architecture=best.architecture, network=best.network, mask_C=best.mask_C, used=(best,)
    )


def plan_finetuned_source(task: TrainingTask) -> SupervisedTraining:
    """Train all layers of the source that is best on L, on L; without sources, train on L alone."""
    if not task.sources:
        return plan_label_only(task)
    best = targets.best_source(task)
    training = finetuned(task, best)
    return replace(training, architecture=best.architecture)


def finetuned(task: TrainingTask, start: Source) -> SupervisedTraining:
    """Train a copy of a model on L."""
    mask_C = start.mask_C | task.label_mask
    return on_labels(task, copy.deepcopy(start.network), mask_C, used=(start,))


def on_labels(
    task: TrainingTask, network: Network, mask_C: BoolArray, used: tuple[Source, ...] = ()
) -> SupervisedTraining:
    """Train a network of the target's architecture on L."""
    return SupervisedTraining(
        network=network,
        x=task.x_L,
        y_N=task.y_L,
        num_rows=len(task.x_L) + len(task.x_U),
        config=task.config.training,
        seed=task.seed,
        architecture=task.architecture,
        mask_C=mask_C,
        used=used,
        private=task.private,
        output=task.output,
    )


def supervised(plan: Plan, **fields: Any) -> Method:
    """The method whose whole training is what ``plan`` gives, alone or side by side with others.

    ``fields`` are Method's other fields. By default it needs no source.
    """
    own = {"fit": partial(_fit, plan), "fit_many": partial(_fit_many, plan), "outputs": OUTPUTS}
    return Method(**{"cost": supervised_cost, "sources_needed": "none", **own, **fields})


def _fit(plan: Plan, task: TrainingTask) -> TrainedModel:
    return train_supervised(plan(task))


def _fit_many(plan: Plan, tasks: Sequence[TrainingTask], device: str) -> list[TrainedModel]:
    return train_supervised_many([plan(task) for task in tasks], device)


fit_label_only = partial(_fit, plan_label_only)
fit_all_labels = partial(_fit, plan_all_labels)
fit_finetuned_source = partial(_fit, plan_finetuned_source)

_private = partial(supervised, trains_privately=True)
METHODS = (
    _private(plan_all_labels, name=INITIAL, title="Initial domains", cost=all_labels_cost),
    _private(plan_label_only, name="label-only", title="Label only"),
    _private(
        plan_all_labels, name="all-labels", title="All labels (reference)", cost=all_labels_cost
    ),
    Method(
        name="best-source",
        title="Best source",
        fit=fit_best_source,
        outputs=OUTPUTS,
        sources_needed="all",
        cost=best_source_cost,
    ),
    supervised(
        plan_finetuned_source,
        name="finetuned-any",
        title="Fine-tuned, any",
        sources_needed="all",
        cost=finetuned_cost,
    ),
    supervised(
        plan_finetuned_source,
        name="finetuned-same",
        title="Fine-tuned, same",
        sources_needed="same-architecture",
        cost=finetuned_cost,
    ),
)
