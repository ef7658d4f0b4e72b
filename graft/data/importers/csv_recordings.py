"""Recordings out of CSV files: each person's unbroken stretches of one label.

Legend: L lines of a stretch, K channels.
"""

import csv
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graft.errors import ConfigError, DatasetFormatError

RowArray = npt.NDArray[np.float64]
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvColumns:
    """Which columns mean what.

    ``user`` None: every file is one person, named by the file. ``time`` None: lines follow each
    other at an even rate; else its numbers times ``time_unit_s`` are seconds. A change of
    ``session`` ends a recording.
    """

    sensors: tuple[str, ...]
    label: str
    user: str | None = None
    time: str | None = None
    time_unit_s: float = 1.0
    session: str | None = None
    delimiter: str = ","

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1:
            raise ConfigError(f"delimiter: got {self.delimiter!r}, wanted one character")
        named = [*self.sensors, self.label, self.user, self.time, self.session]
        given = [name for name in named if name is not None]
        if not self.sensors or not all(given) or len(set(given)) < len(given):
            raise ConfigError(f"columns: got {given}, wanted one sensor or more, and none twice")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stretch:
    """Lines of one person, label and session without a break; ``time_L`` in seconds or None."""

    user: str
    label: str
    rows_LK: RowArray
    time_L: RowArray | None


@dataclass(kw_only=True, slots=True)
class LineTally:
    """What the files held: lines read, and of those skipped the number and the first of each
    reason, by file name. The one mutable record here."""

    lines: int = 0
    skipped: int = 0
    reasons: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)

    def skip(self, name: str, reason: str, line: str) -> None:
        self.skipped += 1
        of_file = self.reasons.setdefault(name, {})
        count, first = of_file.get(reason, (0, line))
        of_file[reason] = count + 1, first

    def words(self) -> list[str]:
        """A sentence for each file and reason."""
        return [
            f"{name}: {count} line{'s' if count > 1 else ''} skipped: {reason}, first {first}"
            for name, reasons in sorted(self.reasons.items())
            for reason, (count, first) in sorted(reasons.items())
        ]


def read_stretches(
    paths: Sequence[Path],
    columns: CsvColumns,
    tally: LineTally,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[Stretch]:
    """Every stretch of the files, in their order; lines that cannot be used are skipped and end
    their stretch.

    Raises DatasetFormatError for a file that is no CSV text or lacks a column, and where two
    files would be one person by their name.
    """
    if columns.user is None:
        _check_stems(paths)
    for number, path in enumerate(paths):
        if progress is not None:
            progress(path.name, number, len(paths))
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield from _read_file(path, csv.reader(file, delimiter=columns.delimiter),
                                      columns, tally)  # fmt: skip
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DatasetFormatError(f"{path}: got {error}, wanted a CSV file in UTF-8") from error


@dataclass(kw_only=True, slots=True)
class _Open:
    """A stretch that is still growing."""

    label: str
    session: str
    values: "array[float]"
    times: "array[float]"

    def close(self, user: str, num_channels: int) -> Stretch:
        return Stretch(
            user=user,
            label=self.label,
            rows_LK=np.frombuffer(self.values, np.float64).reshape(-1, num_channels).copy(),
            time_L=np.frombuffer(self.times, np.float64).copy() if self.times else None,
        )


def _read_file(
    path: Path, lines: Iterator[list[str]], columns: CsvColumns, tally: LineTally
) -> Iterator[Stretch]:
    header = [name.strip() for name in next(lines, [])]
    index_of = _column_indices(path, header, columns)
    sensors = [(name, index_of[name]) for name in columns.sensors]
    # Lines of several people may alternate: each has a stretch of their own under way.
    growing: dict[str, _Open] = {}

    def close(user: str) -> Iterator[Stretch]:
        if user in growing:
            yield growing.pop(user).close(user, len(sensors))

    for index, cells in enumerate(lines, start=2):
        if not cells:
            continue
        tally.lines += 1
        if len(cells) != len(header):
            reason = f"not {len(header)} values as the header has"
            tally.skip(path.name, reason, f"line {index} with {len(cells)}")
            for user in list(growing):  # whose line it was is not known
                yield from close(user)
            continue
        user = cells[index_of[columns.user]].strip() if columns.user else path.stem
        label = cells[index_of[columns.label]].strip()
        session = cells[index_of[columns.session]].strip() if columns.session else ""
        fault = _fault(cells, index_of, user, label, columns)
        if fault:
            tally.skip(path.name, fault[0], f"line {index}{fault[1]}")
            yield from close(user)
            continue
        stretch = growing.get(user)
        if stretch is None or (stretch.label, stretch.session) != (label, session):
            yield from close(user)
            stretch = _Open(label=label, session=session, values=array("d"), times=array("d"))
            growing[user] = stretch
        stretch.values.extend(float(cells[at]) for _, at in sensors)
        if columns.time:
            stretch.times.append(float(cells[index_of[columns.time]]) * columns.time_unit_s)
    for user in list(growing):
        yield from close(user)


def _fault(
    cells: Sequence[str], index_of: Mapping[str, int], user: str, label: str, columns: CsvColumns
) -> tuple[str, str] | None:
    """Why a line cannot be used, and what it has there; None where it can."""
    if not user:
        return f"no {columns.user}", ""
    if not label:
        return f"no {columns.label}", ""
    for name in (*columns.sensors, *((columns.time,) if columns.time else ())):
        text = cells[index_of[name]]
        try:
            number = float(text)
        except ValueError:
            number = math.inf
        # Beyond float32 a value would become an infinity.
        if not abs(number) < _LARGEST:
            return f"{name} is not a number", f" with {text.strip()!r:.30}"
    return None


def _check_stems(paths: Sequence[Path]) -> None:
    """A file's name is a person's: two files of a name would become one."""
    first: dict[str, Path] = {}
    for path in paths:
        if first.setdefault(path.stem, path) != path:
            raise DatasetFormatError(
                f"{path}: got a second file of the name {path.stem!r} (also {first[path.stem]}), "
                "wanted one a person, or a column that names the person"
            )


def _column_indices(path: Path, header: Sequence[str], columns: CsvColumns) -> dict[str, int]:
    named = (columns.user, columns.label, columns.time, columns.session, *columns.sensors)
    wanted = [name for name in named if name]
    missing = [name for name in wanted if name not in header]
    if missing:
        hint = "" if len(header) > 1 else f"; is the delimiter {columns.delimiter!r}?"
        raise DatasetFormatError(
            f"{path}: got the columns {list(header)}, wanted {missing[0]!r} among them{hint}"
        )
    twice = [name for name in wanted if header.count(name) > 1]
    if twice:
        raise DatasetFormatError(
            f"{path}: got the column {twice[0]!r} {header.count(twice[0])} times, wanted once"
        )
    return {name: header.index(name) for name in wanted}
