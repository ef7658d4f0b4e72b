"""What a domain's data is, and what a world of domains offers.

Legend: N rows of a domain, each one sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from graft.core.records import IntArray
from graft.core.streams import Column
from graft.core.tasks import Task
from graft.core.text import short_repr


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class DomainData:
    """All rows of one domain in time order.

    Parameters
    ----------
    domain_id
        Unique in its world.
    x
        Of one stream, the samples (N, ...) as its ``InputSpec`` has them: an array, or a ``Lazy``
        column that is read when it is indexed. Of several, ``Streams`` by name.
    y_N
        Indices into the task's classes; labels (N, C) of 0 and 1 or amounts (N, C) as float32.
    group_N
        Rows of one value come from one recording segment, which a split never divides.
    split_N
        0 train, 1 test; given only where the data's authors fixed it.
    inputs
        The streams that this domain has, where its task has several; a stream that it lacks is
        not in ``x``.
    """

    domain_id: str
    x: Column
    y_N: IntArray
    group_N: IntArray
    split_N: npt.NDArray[np.int8] | None = None
    inputs: tuple[str, ...] = ()
    __repr__ = short_repr


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


def inputs_of(world: World, domain_id: str) -> tuple[str, ...]:
    """The streams that a domain has: all, unless the world has a method ``inputs`` that says so."""
    own = getattr(world, "inputs", None)
    return tuple(own(domain_id)) if own else world.task.input_names
