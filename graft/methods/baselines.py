"""What people would do instead: the baselines that run beside the main method (E)."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from graft.core.records import BoolArray
from graft.methods.base import FOUNDER, Method
from graft.methods.blocks.targets import (
    best_source,
    distil,
    fresh_target,
    known_classes,
    mean_prediction,
)
from graft.methods.cost import all_labels_work, best_source_work, finetuned_work
from graft.methods.supervised import Course, fit_course, on_labels, supervised
from graft.training import Learned, Lesson


def plan_label_only(lesson: Lesson) -> Course:
    """Train on L alone."""
    return on_labels(lesson, fresh_target(lesson), lesson.label_mask)


def plan_all_labels(lesson: Lesson) -> Course:
    """The oracle: train on every row with its true label. A founder's own training as well."""
    y_N = torch.cat([lesson.y_L, lesson.hidden_y_U])
    mask_C: BoolArray = np.bincount(y_N.numpy(), minlength=lesson.task.num_classes) > 0
    course = on_labels(lesson, fresh_target(lesson), mask_C)
    return replace(course, x=torch.cat([lesson.x_L, lesson.x_U]), y_N=y_N)


def fit_best_source(lesson: Lesson) -> Learned:
    """The source that is best on L, as it stands."""
    best = best_source(lesson)
    return Learned(
        architecture=best.architecture, network=best.network, mask_C=best.mask_C, used=(best,)
    )


def plan_finetuned_source(lesson: Lesson) -> Course:
    """The source that is best on L, all its layers trained on L.

    Where nobody has a model to start from (no source of the own architecture), a person
    would train on L alone: so does this.
    """
    if not lesson.sources:
        return plan_label_only(lesson)
    best = best_source(lesson)
    mask_C = best.mask_C | lesson.label_mask
    course = on_labels(lesson, copy.deepcopy(best.network), mask_C, used=(best,))
    return replace(course, architecture=best.architecture)


def fit_average_kd(lesson: Lesson) -> Learned:
    """Distil the plain mean of the sources' predictions on U, beside cross-entropy on L."""
    network = fresh_target(lesson)
    distil(network, mean_prediction(lesson.sources, lesson.x_U), lesson)
    return Learned(
        architecture=lesson.architecture,
        network=network.eval(),
        mask_C=known_classes(lesson),
        used=lesson.sources,
    )


fit_label_only = partial(fit_course, plan_label_only)
fit_all_labels = partial(fit_course, plan_all_labels)
fit_finetuned_source = partial(fit_course, plan_finetuned_source)

METHODS = (
    supervised(plan_all_labels, name=FOUNDER, title="Founders", reach="none", work=all_labels_work),
    supervised(plan_label_only, name="label-only", title="Label only", reach="none"),
    supervised(
        plan_all_labels,
        name="all-labels",
        title="All labels (reference)",
        reach="none",
        work=all_labels_work,
    ),
    Method(
        name="best-source",
        title="Best source",
        fit=fit_best_source,
        reach="all",
        work=best_source_work,
    ),
    supervised(
        plan_finetuned_source,
        name="finetuned-any",
        title="Fine-tuned, any",
        reach="all",
        work=finetuned_work,
    ),
    supervised(
        plan_finetuned_source,
        name="finetuned-same",
        title="Fine-tuned, same",
        reach="same-architecture",
        work=finetuned_work,
    ),
    Method(
        name="average-kd-selected", title="Averaged, selected", fit=fit_average_kd, reach="selected"
    ),
    Method(name="average-kd-all", title="Ship-all (averaged)", fit=fit_average_kd, reach="all"),
)
