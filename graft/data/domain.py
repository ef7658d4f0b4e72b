"""What a domain's data is, and what a world of domains offers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from graft.core.records import FloatArray, IntArray, Task

# N rows of a domain; a row is one window or image.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DomainData:
    """All rows of one domain in time order.

    ``x`` is (N, channels, length) or (N, channels, height, width), float32, finite;
    ``y_N`` indexes the task's classes. Rows of one ``group_N`` value come from one recording
    segment and never straddle a split. ``split_N`` (0 train, 1 test) is given only where
    the data's authors fixed it.
    """

    domain_id: str
    x: FloatArray
    y_N: IntArray
    group_N: IntArray
    split_N: npt.NDArray[np.int8] | None = None


class World(Protocol):
    """A set of domains that share a task; loads one domain at a time."""

    @property
    def task(self) -> Task: ...

    @property
    def domain_ids(self) -> Sequence[str]:
        """Every domain's id, in a fixed order."""
        ...

    def person(self, domain_id: str) -> str:
        """Who a domain's data comes from; domains of one person arrive in the same round."""
        ...

    def load(self, domain_id: str) -> DomainData:
        """One domain's rows; raises DataError (a subclass names what is wrong)."""
        ...
