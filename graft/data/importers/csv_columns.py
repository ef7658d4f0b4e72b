"""Which columns mean what, and where a text file's header is."""

import csv
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graft.data.importers.csv_files import path_fields
from graft.data.importers.csv_numbers import Decimal, decimal_signs, number_of
from graft.data.importers.csv_stamps import time_kind
from graft.errors import ConfigError, DatasetFormatError

UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0, "d": 86_400.0}
# A blank stands for any number of them.
_DELIMITERS = (",", ";", "\t", "|", " ")
COMMENT_SIGNS = ("#", "%", "//")
_HEADER_WITHIN = 200  # lines
_HEADER_LINES = 4  # of a header with quoted line ends
_SAMPLE = 60  # lines below the header that tell decimals and trailing separators


def tidy(text: str) -> str:
    """A name without what is around it, its white space single, in one form of Unicode."""
    return " ".join(unicodedata.normalize("NFC", text).strip(" \t\ufeff\"'").split())


def column_name(text: str) -> str:
    """A column's name without the sign of a comment before a header."""
    return tidy(text).lstrip("#%/ ") or tidy(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFile:
    """A file of labelled intervals, or a folder of them named by person.

    ``start`` and ``end`` are columns; ``shift_s`` is added to their times, None: they count from
    the first line of each recording.
    """

    path: Path
    start: str = "start"
    end: str = "end"
    shift_s: float | None = 0.0


def label_file(path: Path, interval: str, shift: str) -> LabelFile:
    """A labels file of "START,END" and a number of seconds or "start"; raises ConfigError."""
    names = [name.strip() for name in interval.split(",")]
    if len(names) != 2 or not all(names):
        raise ConfigError(f"interval: got {interval!r}, wanted two columns, e.g. start,end")
    shift_s = None if shift == "start" else number_of(shift)
    if shift != "start" and (shift_s is None or not math.isfinite(shift_s)):
        raise ConfigError(f"label-shift: got {shift!r}, wanted seconds or 'start'")
    return LabelFile(path=path, start=names[0], end=names[1], shift_s=shift_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvColumns:
    """Which columns mean what.

    Parameters
    ----------
    sensors
        Columns of numbers.
    label
        Column of the class; None where ``path`` states it.
    user
        None: ``path`` states the person, or every file is one, named by the file.
    time
        None: lines follow each other at an even rate. Numbers or dates and times otherwise.
    time_unit
        "s", "ms", "us", "ns", "min", "h" or "d" (days, as spreadsheets count them); None: that with
        which the lines are at the wanted rate.
    session
        A change of it ends a recording.
    delimiter
        None: that which separates the wanted names.
    encoding
        None: UTF-8, UTF-16 or Windows-1252, as the bytes are.
    decimal
        "." or ","; None: as the first lines show.
    path
        Pattern of the paths below the source, such as "{user}/{label}".
    intervals
        A file that has the labels, by their times; ``label`` is then a column of it, by default
        "label", and so are ``user`` and ``session`` where it has them.
    map_label
        Replaces labels by others, before words for a missing value are left out; "" leaves a
        label's lines out.
    """

    sensors: tuple[str, ...]
    label: str | None = None
    user: str | None = None
    time: str | None = None
    time_unit: str | None = None
    session: str | None = None
    delimiter: str | None = ","
    encoding: str | None = None
    decimal: Decimal | None = None
    path: str | None = None
    intervals: LabelFile | None = None
    map_label: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ConfigError(f"delimiter: got {self.delimiter!r}, wanted one character")
        if self.time_unit is not None and self.time_unit not in UNITS_S:
            raise ConfigError(f"time-unit: got {self.time_unit!r}, wanted one of {list(UNITS_S)}")
        if self.intervals is not None:
            if self.time is None:
                raise ConfigError("labels: got no time, wanted --time: intervals are matched by it")
            object.__setattr__(self, "label", self.label or "label")
        for name in ("label", "user", "time", "session"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else column_name(value))
        object.__setattr__(self, "sensors", tuple(map(column_name, self.sensors)))
        given = self.wanted
        if not self.sensors or not all(given) or len(set(given)) < len(given):
            raise ConfigError(
                f"columns: got {list(given)}, wanted one sensor or more, and none twice"
            )
        stated = path_fields(self.path)
        for name in ("label", "user", "session"):
            if name in stated and getattr(self, name) is not None:
                raise ConfigError(f"{name}: got a column and a field of --path, wanted one")
        if self.label is None and "label" not in stated:
            raise ConfigError("label: got no column, wanted --label or {label} in --path")

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every column that is read."""
        label = None if self.intervals else self.label
        named = (self.user, label, self.time, self.session, *self.sensors)
        return tuple(name for name in named if name is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What the first lines of a text file say of the others.

    ``line`` is the number of the header's last line from 1; ``names`` all columns; ``num_cells``
    those of a line below it, and ``width`` with the empty ones that most have behind them;
    ``index_of`` where each wanted column is; ``decimals`` the decimal
    sign of each column of numbers; ``time_sample`` a first cell of the time column.
    """

    line: int
    text: str
    names: tuple[str, ...]
    delimiter: str
    num_cells: int
    width: int
    index_of: dict[str, int]
    decimals: dict[str, Decimal | None]
    time_sample: str = ""


def match_columns(where: object, names: Sequence[str], columns: CsvColumns) -> dict[str, int]:
    """Where each wanted column is; raises DatasetFormatError for one that is not there once."""
    own = [column_name(name) for name in names]
    folded = [name.casefold() for name in own]
    index_of = {}
    for name in columns.wanted:
        known = own if name in own else folded
        key = name if name in own else name.casefold()
        if known.count(key) != 1:
            if not known.count(key):
                hint = ""
                if len(own) == 1 and columns.delimiter and columns.delimiter not in own[0]:
                    hint = f"; is the delimiter {columns.delimiter!r}?"
                elif len(own) == 1 and name.casefold() in folded[0]:
                    hint = "; is each line in quotes, or the delimiter another?"
                raise DatasetFormatError(
                    f"{where}: got the columns {_listed(own)}, wanted {name!r} among them{hint}"
                )
            raise DatasetFormatError(
                f"{where}: got the column {name!r} {known.count(key)} times, wanted once"
            )
        index_of[name] = known.index(key)
    return index_of


def find_header(where: object, lines: Sequence[str], columns: CsvColumns) -> Header:
    """The first line that names all wanted columns; raises DatasetFormatError where none does."""
    delimiters = (columns.delimiter,) if columns.delimiter else _DELIMITERS
    best: tuple[int, int, list[str]] = (-1, 0, [])
    wanted = {name.casefold() for name in columns.wanted}
    numbered = list(enumerate(lines[:_HEADER_WITHIN], start=1))
    plain = [each for each in numbered if not each[1].lstrip().startswith(COMMENT_SIGNS)]
    for number, first in [*plain, *numbered]:  # a comment may be the header where nothing else is
        for delimiter in delimiters:
            line, last = first, number
            while (cells := split_line(line, delimiter)) is None and last < number + _HEADER_LINES:
                line, last = f"{line} {' '.join(lines[last : last + 1])}", last + 1
            own = [column_name(cell) for cell in cells or []]
            score = len(wanted & {name.casefold() for name in own})
            if score == len(wanted):
                index_of = match_columns(where, own, columns)
                return _describe(where, line, last, delimiter, own, index_of, lines, columns)
            is_longer = number == best[1] and len(own) > len(best[2]) and delimiter != " "
            if line.strip() and (score > best[0] or (score == best[0] and is_longer)):
                best = score, number, own
    if best[2] and all(number_of(name) is not None for name in best[2]):
        raise DatasetFormatError(
            f"{where}: got numbers in the first line, wanted a header: write a line with the "
            f"{len(best[2])} columns' names above them"
        )
    match_columns(where, best[2], columns)
    raise DatasetFormatError(f"{where}: got no header, wanted a line of the columns' names")


def _listed(names: Sequence[str]) -> list[str]:
    """Names for a message; a file that is no table may have any."""
    return [f"{name:.40}" for name in names[:20]] + (["..."] if len(names) > 20 else [])


def split_line(line: str, delimiter: str) -> list[str] | None:
    """A line's cells; None where a quote does not end on it."""
    if delimiter == " ":
        line = " ".join(line.split())
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None


def row_of(cells: list[str], num_cells: int) -> list[str] | None:
    """The cells of a row, which may end with empty ones more; None for any other line."""
    if len(cells) < num_cells or any(map(str.strip, cells[num_cells:])):
        return None
    return cells[:num_cells]


def _describe(
    where: object, line: str, number: int, delimiter: str, names: list[str],
    index_of: dict[str, int], lines: Sequence[str], columns: CsvColumns,
) -> Header:  # fmt: skip
    below = [split_line(each, delimiter) or [] for each in lines[number : number + _SAMPLE]]
    below = [each for each in below if each]
    if _has_row_names(below, names, columns, index_of):
        names, index_of = ["", *names], {name: at + 1 for name, at in index_of.items()}
    num_cells = len(names)
    lengths = [len(each) for each in below]
    usual = max(set(lengths), key=lengths.count) if lengths else num_cells
    if max(index_of.values()) < usual < num_cells and not any(names[usual:]):
        num_cells = usual
    rows = [row for each in below if (row := row_of(each, num_cells)) is not None]
    is_wider = usual > num_cells and any(
        len(each) == usual and row_of(each, num_cells) for each in below
    )
    time = [each[index_of[columns.time]].strip(" \t\"'") for each in rows] if columns.time else []
    stamps = [text for text in time if any(map(str.isdigit, text))]
    numeric = [*columns.sensors]
    if columns.time and time_kind(stamps[0] if stamps else "") == "number":
        numeric.append(columns.time)
    cells = {name: [each[index_of[name]] for each in rows] for name in numeric}
    return Header(
        line=number,
        text=line,
        names=tuple(names),
        delimiter=delimiter,
        num_cells=num_cells,
        width=usual if is_wider else num_cells,
        index_of=index_of,
        decimals=decimal_signs(where, cells, columns.decimal),
        time_sample=stamps[0] if stamps else "",
    )


def _has_row_names(
    below: Sequence[list[str]], names: Sequence[str], columns: CsvColumns, index_of: dict[str, int]
) -> bool:
    """Whether lines begin with their number, which the header does not name, as R writes tables."""
    numbers = [index_of[name] + 1 for name in columns.sensors]
    start = below[0][0] if below else ""
    return start.isdecimal() and all(
        len(each) == len(names) + 1
        and each[0] == str(int(start) + at)
        and all(number_of(each[index], None) is not None for index in numbers)
        for at, each in enumerate(below)
    )
