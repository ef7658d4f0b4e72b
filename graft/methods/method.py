"""What a method is: a name, a way to fit, and which source models a device must be sent for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
