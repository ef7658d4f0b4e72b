"""What all readers of public data sets share: descriptions, counts, rows and windows.

Legend: L lines of a file, C columns, N windows, T samples of a window.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from graft.core.records import BoolArray, FloatArray, IntArray, Task
from graft.data.domain import DomainData
from graft.errors import DatasetFormatError

RowArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How much a data set holds; None where its authors do not say."""

    domains: int
    recordings: int | None = None
    rows: int | None = None
    windows: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetDescription:
    """One public data set as graft reads it.

    ``rate_hz`` is the rate of the last axis of a sample, None where that axis is not time.
    ``published`` are the counts that a complete copy must give.
    """

    name: str
    title: str
    task: Task
    channels: tuple[str, ...]
    rate_hz: float | None
    licence: str
    source_url: str
    citation: str
    published: Counts


@dataclass(kw_only=True, slots=True)
class Tally:
    """What a reader counts as it runs, and the corrupt lines it skipped, by file name."""

    domains: int = 0
    recordings: int = 0
    rows: int = 0
    windows: int = 0
    skipped_lines: dict[str, int] = field(default_factory=dict)

    def add_recording(self, *, rows: int) -> None:
        self.recordings += 1
        self.rows += rows

    def add_skipped(self, name: str, num_lines: int) -> None:
        if num_lines:
            self.skipped_lines[name] = self.skipped_lines.get(name, 0) + num_lines

    def domain(
        self,
        domain_id: str,
        sample_shape: tuple[int, ...],
        parts: Iterable[tuple[FloatArray, IntArray | int, int]],
    ) -> DomainData:
        """A domain of parts in time order (samples (N, ...), label or labels, group), counted."""
        x = [np.empty((0, *sample_shape), np.float32)]
        y = [np.empty(0, np.int64)]
        group = [np.empty(0, np.int64)]
        for x_N, label, group_index in parts:
            x.append(x_N)
            y.append(np.broadcast_to(np.asarray(label, np.int64), len(x_N)))
            group.append(np.full(len(x_N), group_index, np.int64))
        data = DomainData(
            domain_id=domain_id,
            x=np.concatenate(x),
            y_N=np.concatenate(y),
            group_N=np.concatenate(group),
        )
        self.domains += 1
        self.windows += len(data.y_N)
        return data


def person_of(domain_id: str) -> str:
    """The person a domain's data comes from: its id up to "@", which a device's name follows."""
    return domain_id.partition("@")[0]


def check_counts(description: DatasetDescription, tally: Tally) -> None:
    """Compare a whole reading with the published counts.

    Raises:
        DatasetFormatError: a count differs; the message says got and wanted.
    """
    for what in ("domains", "recordings", "rows", "windows"):
        got, wanted = getattr(tally, what), getattr(description.published, what)
        if wanted is not None and got != wanted:
            raise DatasetFormatError(f"{description.name}: got {got} {what}, wanted {wanted}")


def parse_rows(raw: bytes, num_columns: int, delimiter: str | None) -> RowArray:
    """A text file's lines as rows (L, C), all NaN where a line is corrupt.

    A line is corrupt when it has another number of columns or a value that is not a finite
    number. Empty lines at the end do not count. ``delimiter`` None: any white space.
    """
    stripped = raw.rstrip()
    if not stripped:
        return np.empty((0, num_columns))
    num_lines = stripped.count(b"\n") + 1
    try:
        rows_LC = np.loadtxt(io.BytesIO(stripped), delimiter=delimiter, comments=None, ndmin=2)
    except ValueError:
        rows_LC = np.empty((0, 0))
    # loadtxt passes over empty lines, and the lines' numbers are needed to break runs there.
    if rows_LC.shape != (num_lines, num_columns):
        lines = stripped.decode("utf-8", "replace").split("\n")
        rows_LC = np.array([_parse_line(line, num_columns, delimiter) for line in lines])
    rows_LC[~np.isfinite(rows_LC).all(axis=1)] = np.nan
    return rows_LC


def _parse_line(line: str, num_columns: int, delimiter: str | None) -> list[float]:
    try:
        values = [float(part) for part in line.split(delimiter)]
    except ValueError:
        values = []
    return values if len(values) == num_columns else [np.nan] * num_columns


def intact_rows(rows_LC: RowArray) -> BoolArray:
    """Which lines were not corrupt."""
    return ~np.isnan(rows_LC[:, 0])


def runs(key_L: IntArray, valid_L: BoolArray) -> Iterator[tuple[int, int]]:
    """The maximal (start, stop) of valid lines that share one key; invalid lines end a run."""
    marked_L = np.where(valid_L, key_L, np.iinfo(np.int64).min)
    edges = np.flatnonzero(np.diff(marked_L)) + 1
    bounds = [0, *edges.tolist(), len(marked_L)]
    for start, stop in pairwise(bounds):
        if start < stop and valid_L[start]:
            yield start, stop


def cut_windows(rows_LC: RowArray, window: int, step: int) -> FloatArray:
    """All whole windows (N, C, T) of a run, each ``step`` lines after the one before."""
    num_lines, num_columns = rows_LC.shape
    if num_lines < window:
        return np.empty((0, num_columns, window), dtype=np.float32)
    windows_NCT = sliding_window_view(rows_LC, window, axis=0)[::step]
    return np.ascontiguousarray(windows_NCT, dtype=np.float32)
