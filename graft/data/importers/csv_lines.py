"""Lines that can be used, by person, on the disk where they are many; the others are counted.

Legend: L lines, K sensors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from graft.core.records import BoolArray, FloatArray, IntArray
from graft.data.importers.csv_account import LineTally
from graft.data.importers.csv_columns import CsvColumns, column_name, tidy
from graft.data.importers.csv_files import RecordingFile
from graft.data.importers.csv_numbers import is_missing, number_of
from graft.data.importers.csv_stamps import StampReader, TimeKind
from graft.data.importers.csv_tables import open_recording
from graft.data.importers.csv_text import OpenFile, Rows
from graft.errors import DatasetFormatError

Progress = Callable[[str, int, int], None]
_LARGEST = float(np.finfo(np.float32).max)
_HELD_BYTES = 64 << 20
# A line: time in the file's unit, label, recording, lines skipped before it in the file, whether
# some sensors have no value in it.
LINE = np.dtype([("time", "f8"), ("label", "i4"), ("take", "i4"), ("skips", "i4"), ("blank", "?")])
# A sensor without a value in so many lines has a rate of its own; in fewer, lines are damaged.
_OWN_RATE = 0.2
_UNIT_ROWS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Take:
    """The lines of one session of a file, and how its times are read."""

    file: str
    kind: TimeKind
    sample: str
    session: str = "-"


class StoredReadings:
    """Readings (L, K) on the disk, of which slices and lines are read as they are indexed."""

    def __init__(self, path: Path, num_sensors: int) -> None:
        self._path, self._row_bytes = path, 4 * num_sensors
        self.shape = (path.stat().st_size // self._row_bytes, num_sensors)

    def __getitem__(self, lines: slice | IntArray) -> FloatArray:
        if not isinstance(lines, slice):
            return np.array(np.memmap(self._path, np.float32, "r", shape=self.shape)[lines])
        start, stop, _ = lines.indices(self.shape[0])
        count, offset = (stop - start) * self.shape[1], start * self._row_bytes
        read: FloatArray = np.fromfile(self._path, np.float32, count, offset=offset)
        return read.reshape(-1, self.shape[1])


Readings = FloatArray | StoredReadings


@dataclass(kw_only=True, slots=True)
class Recordings:
    """All usable lines by person: numbers in ``users``, ``labels`` and ``takes``."""

    folder: Path
    num_sensors: int
    users: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    takes: list[Take] = field(default_factory=list)
    sparse: set[str] = field(default_factory=set)
    _held: dict[int, list[tuple[npt.NDArray[Any], FloatArray]]] = field(default_factory=dict)
    _bytes: int = 0

    def add(self, user: int, lines_L: npt.NDArray[Any], x_LK: FloatArray) -> None:
        """More lines of a person, after those before."""
        self._held.setdefault(user, []).append((lines_L, x_LK))
        self._bytes += lines_L.nbytes + x_LK.nbytes
        if self._bytes > _HELD_BYTES:
            for each in list(self._held):
                self._store(each)
            self._bytes = 0

    def lines(self, user: int) -> npt.NDArray[Any]:
        """A person's lines (L,) of dtype ``LINE``."""
        path = self._path(user, "lines")
        if not path.exists():
            held = [part for part, _ in self._held.get(user, ())]
            return np.concatenate([np.empty(0, LINE), *held])
        self._store(user)
        return np.fromfile(path, LINE)

    def values(self, user: int) -> "Readings":
        """A person's readings (L, K), in memory or on the disk."""
        path = self._path(user, "x")
        if not path.exists():
            held = [part for _, part in self._held.get(user, ())]
            empty: FloatArray = np.empty((0, self.num_sensors), np.float32)
            return np.concatenate([empty, *held])
        self._store(user)
        return StoredReadings(path, self.num_sensors)

    def _store(self, user: int) -> None:
        parts = self._held.pop(user, [])
        for kind, index in (("lines", 0), ("x", 1)):
            with self._path(user, kind).open("ab") as file:
                file.writelines(part[index].tobytes() for part in parts)

    def _path(self, user: int, kind: str) -> Path:
        return self.folder / f"{user}.{kind}"


def read_recordings(
    files: Sequence[RecordingFile], columns: CsvColumns, folder: Path, tally: LineTally,
    notes: dict[str, list[str]], progress: Progress | None = None,
) -> Recordings:  # fmt: skip
    """Read every file once; ``folder`` takes what does not fit the memory, ``notes`` what is not
    as usual, by what it is."""
    out = Recordings(folder=folder, num_sensors=len(columns.sensors))
    total, done = sum(file.path.stat().st_size for file in files), 0
    for file in files:

        def advance(num_bytes: int, name: str = file.name) -> None:
            nonlocal done
            done += num_bytes
            if progress is not None:
                progress(name, min(done, total), total)

        advance(0)
        opened = open_recording(file.path, columns, advance)
        for note in opened.notes:
            notes.setdefault(note, []).append(file.name)
        _FileReader(file, opened, columns, out, tally).read()
    pa.default_memory_pool().release_unused()
    return out


class _FileReader:
    """Sorts the lines of one file into people's, and counts those that cannot be used."""

    def __init__(
        self, file: RecordingFile, opened: OpenFile, columns: CsvColumns, out: Recordings,
        tally: LineTally,
    ) -> None:  # fmt: skip
        self._name, self._stated = file.name, file.stated
        self._opened, self._columns, self._out, self._tally = opened, columns, out, tally
        self._codes: dict[str, dict[str | None, int]] = {"user": {}, "label": {}, "session": {}}
        self._takes: dict[int, int] = {}
        self._all_skips = 0  # lines of nobody, or that are no row: they end everybody's stretch
        self._own_skips: dict[int, int] = {}
        self._is_first = True
        self._stamps = StampReader(file.name, opened.time_kind)
        self._headers = {name.casefold() for name in opened.names if name}
        self._first_blank = 0

    def read(self) -> None:
        lines = blank = 0
        for rows in self._opened.rows:
            for number, reason, what in rows.broken:
                self._tally.skip(self._name, reason, f"line {number}{what}")
            self._tally.lines += len(rows.broken) + len(rows.line_L)
            if len(rows.line_L):
                usable, partly = self._add(rows)
                lines, blank = lines + usable, blank + partly
            else:
                self._all_skips += len(rows.breaks)
        if blank > _OWN_RATE * lines and self._columns.time:
            self._out.sparse.add(self._name)
        elif blank:
            self._tally.skip(
                self._name, "a sensor has no value", f"line {self._first_blank}", blank
            )

    def _add(self, rows: Rows) -> tuple[int, int]:
        columns, out = self._columns, self._out
        user_L = self._texts(rows, "user", columns.user)
        label_L = np.zeros(len(rows.line_L), np.int64)  # by intervals, once times are known
        if columns.intervals is None:
            label_L = self._texts(rows, "label", columns.label)
        session_L = self._texts(rows, "session", columns.session)
        x_LK = np.empty((len(rows.line_L), len(columns.sensors)), np.float32)
        reason_L = np.zeros(len(rows.line_L), np.int64)
        reasons = ["", f"no {columns.user or 'user'}", f"no {columns.label or 'label'}",
                   "a label that is left out by --map-label"]  # fmt: skip
        reason_L[label_L == -2] = 3
        reason_L[label_L == -1] = 2
        reason_L[user_L < 0] = 1
        absent_LK = np.zeros(x_LK.shape, bool)
        time_L = np.zeros(len(rows.line_L))
        for k, name in enumerate((*columns.sensors, *filter(None, [columns.time]))):
            is_time = k == len(columns.sensors)
            value_L, absent_L = self._numbers(name, rows.columns[name], is_time)
            with np.errstate(invalid="ignore"):
                bad_L = ~(np.abs(value_L) < _LARGEST)
            if is_time:
                time_L = value_L
            else:
                absent_LK[:, k] = absent_L
                with np.errstate(over="ignore"):
                    x_LK[:, k] = value_L
                if columns.time:
                    bad_L &= ~absent_L
            reasons.append(
                f"{name} is not a {'time' if is_time and self._kind != 'number' else 'number'}"
            )
            reason_L[bad_L & (reason_L == 0)] = len(reasons) - 1
        if columns.time:  # a line with no sensor at all is of no use with times, too
            empty_L = absent_LK.all(axis=1) & (reason_L == 0)
            reasons.append(f"{columns.sensors[0]} is not a number")
            reason_L[empty_L] = len(reasons) - 1
        reasons.append("the header again")
        reason_L[self._header_lines(rows, reason_L)] = len(reasons) - 1
        self._skip(rows, reason_L, reasons)
        skips_L = self._skips_before(rows, reason_L, user_L)
        good_L = reason_L == 0
        lines_L = np.empty(int(good_L.sum()), LINE)
        lines_L["time"], lines_L["label"] = time_L[good_L], label_L[good_L]
        lines_L["take"] = self._take_of(session_L[good_L])
        lines_L["skips"], lines_L["blank"] = skips_L[good_L], absent_LK[good_L].any(axis=1)
        if not self._first_blank and lines_L["blank"].any():
            self._first_blank = int(rows.line_L[good_L][lines_L["blank"]][0])
        own_L, own_LK = user_L[good_L], x_LK[good_L]
        users = np.unique(own_L)
        for user in users:
            chosen = slice(None) if len(users) == 1 else own_L == user
            out.add(int(user), lines_L[chosen], own_LK[chosen])
        return len(lines_L), int(lines_L["blank"].sum())

    @property
    def _kind(self) -> TimeKind:
        return self._opened.time_kind

    def _texts(self, rows: Rows, what: str, name: str | None) -> IntArray:
        """The numbers of the column's texts, or of what the path states; negative for none."""
        codes = self._codes[what]
        if name is None:
            return np.full(
                len(rows.line_L),
                self._code(what, self._stated.get(what, "-" if what == "session" else None)),
            )
        array = rows.columns[name]
        coded = array.cast(pa.string()) if not pa.types.is_string(array.type) else array
        coded = coded.dictionary_encode()
        texts = coded.dictionary.to_pylist()
        if not pa.types.is_string(array.type):  # 1.0 of a Parquet file is 1
            texts = [text.removesuffix(".0") for text in texts]
        for text in texts:
            if text not in codes:
                codes[text] = self._code(what, text)
        known = np.array([codes[text] for text in texts] or [-1], np.int64)
        index = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.where(index < 0, -1 if what != "session" else 0, known[index])

    def _code(self, what: str, text: str | None) -> int:
        own = tidy(text) if text is not None else ""
        if what == "session":
            return self._codes["session"].setdefault(f"\0{own}", len(self._codes["session"]))
        if what == "label" and own in self._columns.map_label:
            own = self._columns.map_label[own]
            if not own:
                return -2
        elif is_missing(own) or "\ufffd" in own:
            return -1
        table = self._out.users if what == "user" else self._out.labels
        return table.setdefault(own, len(table))

    def _numbers(
        self, name: str, array: pa.Array, is_time: bool
    ) -> tuple[npt.NDArray[np.float64], BoolArray]:
        """Values, NaN for what is none, and where the cell holds no value at all."""
        if pa.types.is_floating(array.type):
            values = array.to_numpy(zero_copy_only=False)
            return values, np.isnan(values)
        if is_time and self._kind != "number":
            values = self._stamps.seconds(array)
            return values, np.zeros(len(values), bool)
        decimal = self._opened.decimals.get(name, ".")
        texts = pc.fill_null(pc.utf8_trim_whitespace(array), "")
        if decimal == ",":
            swapped = pc.replace_substring(pc.replace_substring(texts, ".", "!"), ",", ".")
        try:
            values = (swapped if decimal == "," else texts).cast(pa.float64())
            return values.to_numpy(zero_copy_only=False), np.isnan(values)
        except pa.ArrowInvalid:
            found = [number_of(text, decimal) for text in texts.to_pylist()]
            absent = np.array([is_missing(text) for text in texts.to_pylist()], bool)
            return np.array([np.nan if each is None else each for each in found], float), absent

    def _skip(self, rows: Rows, reason_L: IntArray, reasons: list[str]) -> None:
        bad = np.flatnonzero(reason_L)
        if self._is_first and len(bad) and bad[0] == 0:
            bad = self._skip_unit_rows(rows, reason_L)
        self._is_first = False
        codes, first, counts = np.unique(reason_L[bad], return_index=True, return_counts=True)
        for code, at, count in zip(codes, first, counts, strict=True):
            index = int(bad[at])
            name = next((each for each in self._columns.wanted
                         if reasons[code].startswith(f"{each} is not a")), "")  # fmt: skip
            if code in (1, 2):
                name = (self._columns.user if code == 1 else self._columns.label) or ""
            text = str(rows.columns[name][index].as_py() or "").strip() if name else ""
            what = f" with {text!r:.30}" if text or code > 2 else ""
            if "," in text and name in self._opened.decimals and not self._opened.decimals[name]:
                what += " (--decimal . or --decimal ,)"
            self._tally.skip(
                self._name, reasons[code], f"line {rows.line_L[index]}{what}", int(count)
            )

    def _header_lines(self, rows: Rows, reason_L: IntArray) -> list[int]:
        """The lines below the header that repeat it, as files hold that were joined; raises
        DatasetFormatError for another header."""
        names = (*self._columns.sensors, *filter(None, [self._columns.time]))
        if pa.types.is_floating(rows.columns[names[0]].type):
            return []
        found = []
        for index in np.flatnonzero(reason_L).tolist():
            own = [rows.columns[name][index].as_py() for name in names]
            if not all(_is_word(cell) and not is_missing(cell) for cell in own):
                continue
            cells = {
                name: column_name(str(rows.columns[name][index].as_py() or "")).casefold()
                for name in self._columns.wanted
            }
            if all(cell == name.casefold() for name, cell in cells.items()):
                found.append(index)
            elif not (self._is_first and index < _UNIT_ROWS) and self._headers & {*cells.values()}:
                raise DatasetFormatError(
                    f"{self._name}: line {rows.line_L[index]}: got another header, with "
                    f"{list(cells.values())} in place of {list(self._columns.wanted)}, wanted one "
                    "in a file: divide the file there"
                )
        return found

    def _skip_unit_rows(self, rows: Rows, reason_L: IntArray) -> IntArray:
        """Rows right below the header without a single number are a second header."""
        names = (*self._columns.sensors, *filter(None, [self._columns.time]))
        height = 0
        while height < min(_UNIT_ROWS, len(reason_L)) and reason_L[height]:
            cells = [rows.columns[name][height].as_py() for name in names]
            if not all(map(_is_word, cells)) or all(is_missing(str(cell)) for cell in cells):
                break
            height += 1
        bad = np.flatnonzero(reason_L)
        if not height or height == len(reason_L):
            return bad
        reason = "a row of units or names below the header"
        self._tally.skip(self._name, reason, f"line {rows.line_L[0]}", height)
        return bad[height:]

    def _skips_before(self, rows: Rows, reason_L: IntArray, user_L: IntArray) -> IntArray:
        """Of each line, how many lines were skipped before it that end its person's stretch."""
        nobody_L = (reason_L > 0) & (user_L < 0)
        broken = np.array(rows.breaks, np.int64)
        skips_L = self._all_skips + np.searchsorted(broken, rows.line_L) + np.cumsum(nobody_L)
        self._all_skips += len(broken) + int(nobody_L.sum())
        own_L = (reason_L > 0) & ~nobody_L
        for user in np.unique(user_L[own_L]).tolist():
            mine_L = user_L == user
            skips_L[mine_L] += np.cumsum(own_L[mine_L]) + self._own_skips.get(user, 0)
            self._own_skips[user] = self._own_skips.get(user, 0) + int(own_L[mine_L].sum())
        for user, count in self._own_skips.items():
            if not (own_L & (user_L == user)).any():
                skips_L[user_L == user] += count
        return skips_L

    def _take_of(self, session_L: IntArray) -> IntArray:
        out = self._out
        numbers = np.unique(session_L)
        names = {code: text or "" for text, code in self._codes["session"].items()}
        for session in numbers.tolist():
            if session not in self._takes:
                self._takes[session] = len(out.takes)
                out.takes.append(
                    Take(
                        file=self._name,
                        kind=self._kind,
                        sample=self._opened.time_sample,
                        session=names.get(session, "-").removeprefix("\0"),
                    )
                )
        known = np.array([self._takes[session] for session in numbers.tolist()] or [0])
        return known[np.searchsorted(numbers, session_L)]


def _is_word(cell: object) -> bool:
    """Whether a cell of a column of numbers or times holds neither."""
    return isinstance(cell, str) and not (
        any(map(str.isdigit, cell)) and number_of(cell.replace(",", ".")) is not None
    )
