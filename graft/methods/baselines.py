"""What people would do instead: the baselines that run beside the main method (E)."""

import copy

import numpy as np
import torch

from graft.methods.method import FOUNDER, Method
from graft.methods.target import (
    best_source,
    distil,
    fresh_target,
    known_classes,
    mean_prediction,
    train_supervised,
)
from graft.methods.work import all_labels_work, best_source_work, finetuned_work, supervised_work
from graft.training import Learned, Lesson
from graft.values import BoolArray


def fit_label_only(lesson: Lesson) -> Learned:
    """Train on L alone."""
    network = fresh_target(lesson)
    train_supervised(network, lesson.x_L, lesson.y_L, lesson)
    return Learned(
        architecture=lesson.architecture, network=network.eval(), mask_C=lesson.label_mask
    )


def fit_all_labels(lesson: Lesson) -> Learned:
    """The oracle: train on every row with its true label. A founder's own training as well."""
    network = fresh_target(lesson)
    y = torch.cat([lesson.y_L, lesson.hidden_y_U])
    train_supervised(network, torch.cat([lesson.x_L, lesson.x_U]), y, lesson)
    mask_C: BoolArray = np.bincount(y.numpy(), minlength=lesson.task.num_classes) > 0
    return Learned(architecture=lesson.architecture, network=network.eval(), mask_C=mask_C)


def fit_best_source(lesson: Lesson) -> Learned:
    """The source that is best on L, as it stands."""
    best = best_source(lesson)
    return Learned(
        architecture=best.architecture, network=best.network, mask_C=best.mask_C, used=(best,)
    )


def fit_finetuned_source(lesson: Lesson) -> Learned:
    """The source that is best on L, all its layers trained on L.

    Where nobody has a model to start from (no source of the own architecture), a person
    would train on L alone: so does this.
    """
    if not lesson.sources:
        return fit_label_only(lesson)
    best = best_source(lesson)
    network = copy.deepcopy(best.network)
    train_supervised(network, lesson.x_L, lesson.y_L, lesson)
    return Learned(
        architecture=best.architecture,
        network=network.eval(),
        mask_C=best.mask_C | lesson.label_mask,
        used=(best,),
    )


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


METHODS = (
    Method(name=FOUNDER, title="Founders", fit=fit_all_labels, reach="none", work=all_labels_work),
    Method(
        name="label-only",
        title="Label only",
        fit=fit_label_only,
        reach="none",
        work=supervised_work,
    ),
    Method(
        name="all-labels",
        title="All labels (reference)",
        fit=fit_all_labels,
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
    Method(
        name="finetuned-any",
        title="Fine-tuned, any",
        fit=fit_finetuned_source,
        reach="all",
        work=finetuned_work,
    ),
    Method(
        name="finetuned-same",
        title="Fine-tuned, same",
        fit=fit_finetuned_source,
        reach="same-architecture",
        work=finetuned_work,
    ),
    Method(
        name="average-kd-selected",
        title="Averaged, selected",
        fit=fit_average_kd,
        reach="selected",
    ),
    Method(name="average-kd-all", title="Ship-all (averaged)", fit=fit_average_kd, reach="all"),
)
