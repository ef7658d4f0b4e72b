"""Methods whose whole training is cross-entropy on labelled rows: alone, or many side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from graft.core.config import TrainingConfig
from graft.core.records import BoolArray
from graft.methods.base import Method
from graft.methods.cost import supervised_work
from graft.models.zoo import Network
from graft.training import (
    Learned,
    Lesson,
    Prototypes,
    Source,
    SupervisedJob,
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


Plan = Callable[[Lesson], Course]


def on_labels(
    lesson: Lesson, network: Network, mask_C: BoolArray, used: tuple[Source | Prototypes, ...] = ()
) -> Course:
    """Train a network of the target's architecture on L."""
    return Course(
        architecture=lesson.architecture,
        network=network,
        x=lesson.x_L,
        y_N=lesson.y_L,
        mask_C=mask_C,
        training=lesson.config.training,
        seed=lesson.seed,
        used=used,
    )


def supervised(plan: Plan, **facts: Any) -> Method:
    """The method that trains as ``plan`` lays out; ``facts`` are Method's other fields."""
    own = {"fit": partial(fit_course, plan), "fit_many": partial(fit_courses, plan)}
    return Method(**{"work": supervised_work, **own, **facts})


def fit_course(plan: Plan, lesson: Lesson) -> Learned:
    """Train one lesson's network."""
    course = plan(lesson)
    train_alone(_job(course, lesson))
    return _learned(course)


def fit_courses(plan: Plan, lessons: Sequence[Lesson], accelerator: str) -> list[Learned]:
    """Train the networks of many lessons side by side."""
    courses = [plan(lesson) for lesson in lessons]
    jobs = [_job(course, lesson) for course, lesson in zip(courses, lessons, strict=True)]
    train_supervised_many(jobs, accelerator)
    return list(map(_learned, courses))


def _job(course: Course, lesson: Lesson) -> SupervisedJob:
    """As many steps as every other method takes."""
    return SupervisedJob(
        network=course.network,
        x=course.x,
        y_N=course.y_N,
        num_rows=len(lesson.x_L) + len(lesson.x_U),
        config=course.training,
        seed=course.seed,
    )


def _learned(course: Course) -> Learned:
    return Learned(
        architecture=course.architecture,
        network=course.network.eval(),
        mask_C=course.mask_C,
        used=course.used,
    )
