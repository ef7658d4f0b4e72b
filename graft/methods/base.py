"""What a method is: a name, a way to fit, and which source models a device must be sent for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from graft.core.records import Precision
from graft.methods.cost import distilled_cost
from graft.training import TrainedModel, TrainingTask
from graft.training.cost import ComputeCost, WorkloadShape

SourcesNeeded = Literal["none", "selected", "same-architecture", "all", "centroids"]
# TrainingTasks of many devices at once, and the torch device to train them on.
FitMany = Callable[[Sequence[TrainingTask], str], list[TrainedModel]]
INITIAL = "initial"


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A plug-in. ``title`` is what a reader of a report sees; it ends in "-style" where the method
    is written from a paper's text and reproduces no published number. ``sources_needed`` says which
    source models a device must hold for it:

    none; those that the two-stage selection chose; all of the target's own architecture; all;
    or no model, but the class centroids of those that stage one ranks nearest.
    ``fit_many`` gives for each training task what ``fit`` gives for it alone, up to rounding: a
    simulator trains the models of many devices side by side with it. ``initial_only`` leaves models
    of later rounds out of its catalogue (A7's comparison). ``precision``: "base" where the int8
    bases that the device probed are enough to teach. ``warm_start``: one of what is chosen is of
    the target's own architecture, wherever a candidate is. ``needs_average``: it also gets the
    average model of the initial domains of its own architecture. ``cost``: how much a training task
    of this shape is for a device, for the simulated clock. ``reads``: the sections of the
    configuration that no other kind of method reads.
    """

    name: str
    title: str
    fit: Callable[[TrainingTask], TrainedModel]
    sources_needed: SourcesNeeded
    fit_many: FitMany | None = None
    initial_only: bool = False
    precision: Precision = "exact"
    warm_start: bool = False
    needs_average: bool = False
    cost: Callable[[WorkloadShape], ComputeCost] = distilled_cost
    reads: tuple[str, ...] = ()
