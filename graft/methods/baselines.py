"""What people would do instead: the baselines that run beside the main method (E)."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from graft.core.records import BoolArray
from graft.methods.base import INITIAL, Method
from graft.methods.blocks.targets import (
    best_source,
    distil,
    fresh_target,
    known_classes,
    mean_prediction,
)
from graft.methods.cost import all_labels_cost, best_source_cost, finetuned_cost
from graft.methods.supervised import Course, fit_course, on_labels, supervised
from graft.training import TrainedModel, TrainingTask


def plan_label_only(task: TrainingTask) -> Course:
    """Train on L alone."""
    return on_labels(task, fresh_target(task), task.label_mask)


def plan_all_labels(task: TrainingTask) -> Course:
    """The oracle: train on every row with its true label. An source's own training as well."""
    y_N = torch.cat([task.y_L, task.hidden_y_U])
    mask_C: BoolArray = np.bincount(y_N.numpy(), minlength=task.task.num_classes) > 0
    course = on_labels(task, fresh_target(task), mask_C)
    return replace(course, x=torch.cat([task.x_L, task.x_U]), y_N=y_N)


def fit_best_source(task: TrainingTask) -> TrainedModel:
    """The source that is best on L, as it stands."""
    best = best_source(task)
    return TrainedModel(
        architecture=best.architecture, network=best.network, mask_C=best.mask_C, used=(best,)
    )


def plan_finetuned_source(task: TrainingTask) -> Course:
    """The source that is best on L, all its layers trained on L.

    Where nobody has a model to start from (no source of the own architecture), a person
    would train on L alone: so does this.
    """
    if not task.sources:
        return plan_label_only(task)
    best = best_source(task)
    mask_C = best.mask_C | task.label_mask
    course = on_labels(task, copy.deepcopy(best.network), mask_C, used=(best,))
    return replace(course, architecture=best.architecture)


def fit_average_kd(task: TrainingTask) -> TrainedModel:
    """Distil the plain mean of the sources' predictions on U, beside cross-entropy on L."""
    network = fresh_target(task)
    distil(network, mean_prediction(task.sources, task.x_U), task)
    return TrainedModel(
        architecture=task.architecture,
        network=network.eval(),
        mask_C=known_classes(task),
        used=task.sources,
    )


fit_label_only = partial(fit_course, plan_label_only)
fit_all_labels = partial(fit_course, plan_all_labels)
fit_finetuned_source = partial(fit_course, plan_finetuned_source)

METHODS = (
    supervised(
        plan_all_labels,
        name=INITIAL,
        title="Initial domains",
        sources_needed="none",
        cost=all_labels_cost,
    ),
    supervised(plan_label_only, name="label-only", title="Label only", sources_needed="none"),
    supervised(
        plan_all_labels,
        name="all-labels",
        title="All labels (reference)",
        sources_needed="none",
        cost=all_labels_cost,
    ),
    Method(
        name="best-source",
        title="Best source",
        fit=fit_best_source,
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
    Method(
        name="average-kd-selected",
        title="Averaged, selected",
        fit=fit_average_kd,
        sources_needed="selected",
    ),
    Method(
        name="average-kd-all", title="Ship-all (averaged)", fit=fit_average_kd, sources_needed="all"
    ),
)
