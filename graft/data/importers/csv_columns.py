"""Which columns mean what, and where a text file's header is."""

import csv
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from graft.data.importers.csv_files import path_fields
from graft.errors import ConfigError, DatasetFormatError

UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DELIMITERS = (",", ";", "\t", "|")
_HEADER_WITHIN = 200  # lines
_SAMPLE = 60  # lines below the header that tell decimals and trailing separators
_COMMA_NUMBER = re.compile(r"\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*")
# Words that programs write where there is no value, in lower case.
MISSING = frozenset(
    ("", "nan", "-nan", "na", "n/a", "#n/a", "<na>", "null", "(null)", "#null!", "none", "nil",
     "-", "--", "?", "missing", "undefined", "(blank)", "#value!", "#ref!", "#div/0!", "#name?",
     "#num!", "1.#qnan", "-1.#ind")
)  # fmt: skip


def is_missing(text: str) -> bool:
    """Whether a cell holds a word for a missing value."""
    return text.strip().casefold() in MISSING


def tidy(text: str) -> str:
    """A name without what is around it, its white space single, in one form of Unicode."""
    return " ".join(unicodedata.normalize("NFC", text).strip(" \t\ufeff\"'").split())


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
        "s", "ms", "us" or "ns"; None: that with which the lines are at the wanted rate.
    session
        A change of it ends a recording.
    delimiter
        None: that which separates the wanted names.
    encoding
        None: UTF-8, UTF-16 or Windows-1252, as the bytes are.
    path
        Pattern of the paths below the source, such as "{user}/{label}".
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
    path: str | None = None
    map_label: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ConfigError(f"delimiter: got {self.delimiter!r}, wanted one character")
        if self.time_unit is not None and self.time_unit not in UNITS_S:
            raise ConfigError(f"time-unit: got {self.time_unit!r}, wanted one of {list(UNITS_S)}")
        for name in ("label", "user", "time", "session"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tidy(value))
        object.__setattr__(self, "sensors", tuple(map(tidy, self.sensors)))
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
        named = (self.user, self.label, self.time, self.session, *self.sensors)
        return tuple(name for name in named if name is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What the first lines of a text file say of the others.

    ``line`` is the header's number from 1; ``num_cells`` those of a line below it; ``index_of``
    where each wanted column is; ``time_sample`` a first cell of the time column.
    """

    line: int
    text: str
    delimiter: str
    num_cells: int
    index_of: dict[str, int]
    decimal: str
    time_sample: str = ""


def match_columns(where: object, names: Sequence[str], columns: CsvColumns) -> dict[str, int]:
    """Where each wanted column is; raises DatasetFormatError for one that is not there once."""
    own = [tidy(name) for name in names]
    folded = [name.casefold() for name in own]
    index_of = {}
    for name in columns.wanted:
        known = own if name in own else folded
        key = name if name in own else name.casefold()
        if known.count(key) != 1:
            if not known.count(key):
                hint = ""
                if len(own) == 1 and columns.delimiter:
                    hint = f"; is the delimiter {columns.delimiter!r}?"
                raise DatasetFormatError(
                    f"{where}: got the columns {own}, wanted {name!r} among them{hint}"
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
    for number, line in enumerate(lines[:_HEADER_WITHIN], start=1):
        for delimiter in delimiters:
            cells = split_line(line, delimiter) or []
            own = [tidy(cell) for cell in cells]
            score = len(wanted & {name.casefold() for name in own})
            if score == len(wanted):
                index_of = match_columns(where, own, columns)
                return _describe(line, number, delimiter, cells, index_of, lines, columns)
            is_longer = number == best[1] and len(own) > len(best[2])
            if line.strip() and (score > best[0] or (score == best[0] and is_longer)):
                best = score, number, own
    match_columns(where, best[2], columns)
    raise DatasetFormatError(f"{where}: got no header, wanted a line of the columns' names")


def split_line(line: str, delimiter: str) -> list[str] | None:
    """A line's cells; None where a quote does not end on it."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None


def number_of(text: str, decimal: str = ".") -> float | None:
    """The number in a cell; None where there is none."""
    try:
        return (
            float(text.replace(",", ".") if decimal == "," else text) if "_" not in text else None
        )
    except ValueError:
        return None


def _describe(
    line: str, number: int, delimiter: str, cells: list[str], index_of: dict[str, int],
    lines: Sequence[str], columns: CsvColumns,
) -> Header:  # fmt: skip
    below = [split_line(each, delimiter) or [] for each in lines[number : number + _SAMPLE]]
    below = [each for each in below if each]
    num_cells = len(cells)
    lengths = [len(each) for each in below]
    usual = max(set(lengths), key=lengths.count) if lengths else num_cells
    if usual == num_cells + 1 and all(not each[-1].strip() for each in below if len(each) == usual):
        num_cells = usual  # lines end with a separator, the header does not
    elif max(index_of.values()) < usual < num_cells and not any(map(str.strip, cells[usual:])):
        num_cells = usual
    rows = [each for each in below if len(each) == num_cells]
    numeric = [index_of[name] for name in (*columns.sensors, *filter(None, [columns.time]))]
    texts = [each[at] for each in rows for at in numeric]
    has_comma = any(_COMMA_NUMBER.fullmatch(text) for text in texts)
    has_point = any("." in text and number_of(text) is not None for text in texts)
    time = [each[index_of[columns.time]].strip() for each in rows] if columns.time else []
    stamps = [text for text in time if any(map(str.isdigit, text))]
    return Header(
        line=number,
        text=line,
        delimiter=delimiter,
        num_cells=num_cells,
        index_of=index_of,
        decimal="," if has_comma and not has_point else ".",
        time_sample=stamps[0] if stamps else "",
    )
