"""Every method by name: how it fits, and which sources it must be sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from graft.errors import ConfigError
from graft.methods.baselines import (
    fit_all_labels,
    fit_average_kd,
    fit_best_source,
    fit_finetuned_source,
    fit_label_only,
)
from graft.methods.hat import fit_hat
from graft.training import Learned, Lesson

Reach = Literal["none", "selected", "same-architecture", "all"]
FOUNDER = "founder"


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A plug-in. ``reach`` says which source models a device must hold for it:

    none; those that the two-stage selection chose; all of the target's own architecture; all.
    ``founders_only`` leaves models of later rounds out of its catalogue (A7's comparison).
    """

    name: str
    title: str
    fit: Callable[[Lesson], Learned]
    reach: Reach
    founders_only: bool = False


_METHODS = (
    Method(name=FOUNDER, title="Founder", fit=fit_all_labels, reach="none"),
    Method(name="hat", title="HaT-style", fit=fit_hat, reach="selected"),
    Method(
        name="hat-founders",
        title="HaT-style, founders as sources",
        fit=fit_hat,
        reach="selected",
        founders_only=True,
    ),
    Method(name="label-only", title="Label-only", fit=fit_label_only, reach="none"),
    Method(name="all-labels", title="All labels (oracle)", fit=fit_all_labels, reach="none"),
    Method(name="best-source", title="Best source as it stands", fit=fit_best_source, reach="all"),
    Method(
        name="finetuned-any",
        title="Fine-tuned best source, any architecture",
        fit=fit_finetuned_source,
        reach="all",
    ),
    Method(
        name="finetuned-same",
        title="Fine-tuned best source, own architecture",
        fit=fit_finetuned_source,
        reach="same-architecture",
    ),
    Method(
        name="average-kd-selected",
        title="Average KD from selected",
        fit=fit_average_kd,
        reach="selected",
    ),
    Method(name="average-kd-all", title="Average KD from all", fit=fit_average_kd, reach="all"),
)


def methods_by_name() -> Mapping[str, Method]:
    """Every registered method."""
    return {method.name: method for method in _METHODS}


def find_method(name: str) -> Method:
    """The method of that name; raises ConfigError for an unknown one."""
    known = methods_by_name()
    if name not in known:
        raise ConfigError(f"method: got {name!r}, wanted one of {sorted(known)}")
    return known[name]
