"""What a domain's data is, and what a world of domains offers.

Legend: N rows of a domain, each one window or image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from graft.core.records import FloatArray, IntArray, Task


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DomainData:
    """All rows of one domain in time order.

    Parameters
    ----------
    domain_id
        Unique in its world.
    x
        (N, channels, length) or (N, channels, height, width), float32, finite.
    y_N
        Indices into the task's classes.
    group_N
        Rows of one value come from one recording segment, which a split never divides.
    split_N
        0 train, 1 test; given only where the data's authors fixed it.
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
        """The person that a domain's data comes from; domains of one person arrive together."""
        ...

    def load(self, domain_id: str) -> DomainData:
        """One domain's rows; raises DataError (a subclass names what is wrong)."""
        ...
