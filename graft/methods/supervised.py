"""Methods whose whole training is cross-entropy on labelled rows: alone, or many side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from graft.core.config import TrainingConfig
from graft.core.records import BoolArray
from graft.methods.base import Method
from graft.methods.cost import supervised_cost
from graft.models import Network
from graft.training import (
    Prototypes,
    Source,
    SupervisedJob,
    TrainedModel,
    TrainingTask,
    train_alone,
    train_supervised_many,
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Course:
    """What a method trains, from where and on which rows, and what it then is.

    ``network`` is trained in place; ``used`` are the sources that it came from.
    """

    architecture: str
    network: Network
    x: Tensor
    y_N: Tensor
    mask_C: BoolArray
    training: TrainingConfig
    seed: int
    used: tuple[Source | Prototypes, ...] = ()


Plan = Callable[[TrainingTask], Course]


def on_labels(
    task: TrainingTask,
    network: Network,
    mask_C: BoolArray,
    used: tuple[Source | Prototypes, ...] = (),
) -> Course:
    """Train a network of the target's architecture on L."""
    return Course(
        architecture=task.architecture,
        network=network,
        x=task.x_L,
        y_N=task.y_L,
        mask_C=mask_C,
        training=task.config.training,
        seed=task.seed,
        used=used,
    )


def supervised(plan: Plan, **facts: Any) -> Method:
    """The method that trains as ``plan`` lays out; ``facts`` are Method's other fields."""
    own = {"fit": partial(fit_course, plan), "fit_many": partial(fit_courses, plan)}
    return Method(**{"cost": supervised_cost, **own, **facts})


def fit_course(plan: Plan, task: TrainingTask) -> TrainedModel:
    """Train one training task's network."""
    course = plan(task)
    train_alone(_job(course, task))
    return _trained_model(course)


def fit_courses(plan: Plan, tasks: Sequence[TrainingTask], accelerator: str) -> list[TrainedModel]:
    """Train the networks of many training tasks side by side."""
    courses = [plan(task) for task in tasks]
    jobs = [_job(course, task) for course, task in zip(courses, tasks, strict=True)]
    train_supervised_many(jobs, accelerator)
    return list(map(_trained_model, courses))


def _job(course: Course, task: TrainingTask) -> SupervisedJob:
    """As many steps as every other method takes."""
    return SupervisedJob(
        network=course.network,
        x=course.x,
        y_N=course.y_N,
        num_rows=len(task.x_L) + len(task.x_U),
        config=course.training,
        seed=course.seed,
    )


def _trained_model(course: Course) -> TrainedModel:
    return TrainedModel(
        architecture=course.architecture,
        network=course.network.eval(),
        mask_C=course.mask_C,
        used=course.used,
    )
