"""What all readers of public data sets share: descriptions, counts, rows and windows.

Legend: L lines of a file, C columns, N windows, T samples of a window.
"""

import io
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from graft.core.records import BoolArray, FloatArray, IntArray
from graft.core.streams import Column
from graft.core.tasks import InputSpec, Task
from graft.data.domain import DomainData
from graft.errors import DatasetFormatError

RowArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Where a data set's originals are; ``sha256`` (hex) where it is known."""

    url: str
    file_name: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetDescription:
    """One public data set as graft reads it, from ``datasets.toml``, which explains the keys.

    ``download`` is None where the originals have no address of their own for one file.
    """

    name: str
    title: str
    task: Task
    channels: tuple[str, ...]
    rate_hz: float | None
    licence: str
    source_url: str
    citation: str
    published: Mapping[str, int]
    download: Download | None


@cache
def describe(name: str) -> DatasetDescription:
    """The description of a data set that ``datasets.toml`` has."""
    text = resources.files("graft.data.public").joinpath("datasets.toml").read_text("utf-8")
    table = tomllib.loads(text)[name]
    return DatasetDescription(
        name=name,
        title=table["title"],
        task=Task(
            name=name,
            modality=table["modality"],
            sample_shape=tuple(table.get("sample_shape", ())),
            classes=tuple(table["classes"]),
            inputs=tuple(
                InputSpec(**{**each, "shape": tuple(each["shape"])})
                for each in table.get("inputs", ())
            ),
        ),
        channels=tuple(table.get("channels", ())),
        rate_hz=table.get("rate_hz"),
        licence=table["licence"],
        source_url=table["source_url"],
        citation=table["citation"],
        published=table["published"],
        download=Download(
            url=table["url"], file_name=table["file_name"], sha256=table.get("sha256")
        )
        if "url" in table
        else None,
    )


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
        return self.of_rows(domain_id, np.concatenate(x), np.concatenate(y), np.concatenate(group))

    def of_rows(
        self,
        domain_id: str,
        x: Column,
        y: Sequence[int] | IntArray,
        group: Sequence[int] | IntArray | None = None,
        split: Sequence[int] | None = None,
    ) -> DomainData:
        """A domain of rows in time order, counted; by default each row is its own group."""
        y_N = np.asarray(y, np.int64)
        self.domains += 1
        self.windows += len(y_N)
        return DomainData(
            domain_id=domain_id,
            x=x,
            y_N=y_N,
            group_N=np.arange(len(y_N)) if group is None else np.asarray(group, np.int64),
            split_N=None if split is None else np.asarray(split, np.int8),
        )


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Orders "2" before "10"."""
    parts = re.findall(r"\d+|\D+", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def check_counts(description: DatasetDescription, tally: Tally) -> None:
    """Raise DatasetFormatError where a whole reading has other counts than the published ones."""
    for what, wanted in description.published.items():
        got = getattr(tally, what)
        if got != wanted:
            raise DatasetFormatError(f"{description.name}: got {got} {what}, wanted {wanted}")


def parse_rows(raw: bytes, num_columns: int, delimiter: str | None) -> RowArray:
    """A text file's lines as rows (L, C), all NaN where a line is corrupt: it has another number
    of columns or a value that is not a finite number. ``delimiter`` None: any white space."""
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
