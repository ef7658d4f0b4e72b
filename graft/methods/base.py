"""What a method is: a name, a way to fit, and which source models a device must be sent for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from graft.core.records import Precision
from graft.methods.cost import distilled_work
from graft.training import Learned, Lesson
from graft.training.cost import LessonShape, Work

Reach = Literal["none", "selected", "same-architecture", "all", "centroids"]
# Lessons of many devices at once, and the torch device to train them on.
FitMany = Callable[[Sequence[Lesson], str], list[Learned]]
FOUNDER = "founder"


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A plug-in. ``title`` is what a reader of a report sees; it ends in "-style" where the method
    is written from a paper's text and reproduces no published number. ``reach`` says which
    source models a device must hold for it:

    none; those that the two-stage selection chose; all of the target's own architecture; all;
    or no model, but the class centroids of those that stage one ranks nearest.
    ``fit_many`` gives for each lesson what ``fit`` gives for it alone, up to rounding: a simulator
    trains the models of many devices side by side with it.
    ``founders_only`` leaves models of later rounds out of its catalogue (A7's comparison).
    ``precision``: "base" where the int8 bases that the device probed are enough to teach.
    ``warm_start``: one of what is chosen is of the target's own architecture, wherever a
    candidate is.
    ``group``: it also gets the average model of the founders of its own architecture.
    ``work``: how much a lesson of this shape is for a device, for the simulated clock.
    ``reads``: the sections of the configuration that no other kind of method reads.
    """

    name: str
    title: str
    fit: Callable[[Lesson], Learned]
    reach: Reach
    fit_many: FitMany | None = None
    founders_only: bool = False
    precision: Precision = "exact"
    warm_start: bool = False
    group: bool = False
    work: Callable[[LessonShape], Work] = distilled_work
    reads: tuple[str, ...] = ()
