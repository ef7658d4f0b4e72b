"""What the numbers of records may be: declared once, at the fields.

The wire refuses a record with any other number, and the columns of the tables are wide enough for
all of these, so that what was decoded can also be written and reported.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Final, get_args

import numpy as np
import numpy.typing as npt

from graft.errors import MessageError


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """The least and the greatest value of a number, or of every number in an array."""

    low: float
    high: float

    def check(self, what: str, value: object) -> None:
        """Raise MessageError for a value that lies outside, NaN included, or is no number."""
        if isinstance(value, tuple):
            for each in value:
                self.check(what, each)
            return
        kinds = int | float | np.integer | np.floating | np.ndarray
        if not isinstance(value, kinds) or not np.all((self.low <= value) & (value <= self.high)):
            got = f"an array {_extremes(value)}" if isinstance(value, np.ndarray) else value
            raise MessageError(f"{what}: got {got!s:.60}, wanted {self.low:g} to {self.high:g}")


# Sums of a hundred thousand of them are exact in 64 bits.
Index = Annotated[int, Range(0, 2**31 - 1)]
Samples = Annotated[int, Range(0, 2**40)]
NumBytes = Annotated[int, Range(0, 2**46)]
Seconds = Annotated[float, Range(0, 1e9)]
Share = Annotated[float, Range(0, 1)]
# Statistics of samples are finite and so are their squares and distances, in float32 too.
Statistics = Annotated[npt.NDArray[np.float32], Range(-1e9, 1e9)]
Shares = Annotated[npt.NDArray[np.float32], Range(0, 1)]
ClassCounts = Annotated[npt.NDArray[np.int64], Range(0, 2**40)]
Distance = Annotated[float, Range(0, 1e16)]
Distances = Annotated[tuple[float, ...], Range(0, 1e16)]
Sizes = Annotated[tuple[int, ...], Range(0, 2**31 - 1)]
Score = Annotated[float, Range(-1e6, 1e6)]
R2 = Annotated[float, Range(-1e6, 1)]
Error = Annotated[float, Range(0, 1e12)]

_SHARE, _SAMPLES = Range(0, 1), Range(0, 2**40)
# Metrics of a ``TrainResult`` by name; a method's others are within ``OTHER_METRICS``.
METRICS: Final[Mapping[str, Range]] = MappingProxyType(
    {
        **dict.fromkeys(("accuracy", "macro_f1", "held_out_accuracy", "knowledge_quality"), _SHARE),
        "mean_average_precision": _SHARE,
        "r2": Range(-1e6, 1),
        "mean_absolute_error": Range(0, 1e12),
        **dict.fromkeys(("old_accuracy_before", "old_accuracy", "new_accuracy"), _SHARE),
        **dict.fromkeys(("num_test", "num_labelled", "num_unlabelled"), _SAMPLES),
    }
)
OTHER_METRICS: Final = Range(-1e12, 1e12)


def check_ranges(record: object, what: str = "") -> None:
    """Raise MessageError where a number of a record, of its own fields, is out of its range.

    ``what`` stands before the field's name.
    """
    kind: Any = type(record)
    for name, is_integer, allowed in field_ranges(kind):
        value = getattr(record, name)
        if value is None:
            continue
        if is_integer and not isinstance(value, int | np.integer):
            raise MessageError(f"{what}{name}: got {value!r:.40}, wanted an integer")
        allowed.check(what + name, value)


def check_metrics(metrics: Mapping[str, float]) -> None:
    """Raise MessageError where a metric is out of its range."""
    for name, value in metrics.items():
        METRICS.get(name, OTHER_METRICS).check(f"metric {name}", value)


@cache
def field_ranges(record: type) -> tuple[tuple[str, bool, Range], ...]:
    """Of each field of a record class that has a range: its name, whether it is an integer, and
    the range."""
    return tuple(
        (item.name, get_args(hint)[0] is int, allowed)
        for item in dataclasses.fields(record)
        for hint, allowed in _annotated(item.type)
    )


def _annotated(hint: Any) -> Iterator[tuple[Any, Range]]:
    """The ranges of a type, or of a part of a union."""
    for part in (hint, *get_args(hint)):
        for note in getattr(part, "__metadata__", ()):
            if isinstance(note, Range):
                yield part, note


def _extremes(array: npt.NDArray[Any]) -> str:
    return f"of {array.min()} to {array.max()}" if array.size else "without values"
