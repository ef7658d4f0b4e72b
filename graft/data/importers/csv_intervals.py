"""Labels of intervals in a file of their own: which lines of a recording lie in which.

Legend: I intervals, L lines in order of time, S segments between the ends of intervals.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from graft.core.records import BoolArray, IntArray
from graft.data.importers.csv_account import NO_LABEL, TWO_LABELS, LineTally
from graft.data.importers.csv_clock import TimeArray
from graft.data.importers.csv_columns import UNITS_S, CsvColumns, column_name, tidy
from graft.data.importers.csv_files import RecordingFile, find_files, path_fields, stem
from graft.data.importers.csv_lines import Take
from graft.data.importers.csv_numbers import is_missing, number_of
from graft.data.importers.csv_stamps import StampReader, TimeKind
from graft.data.importers.csv_tables import open_recording
from graft.data.importers.csv_text import OpenFile, Rows
from graft.errors import DatasetFormatError

_DAY_S = 86_400.0
# A line's and an interval's time are the same in spite of rounding.
_EXACT_S = 1e-6
# Fewer intervals with a line are those of another clock.
_FEW = 0.1
_SHIFTS_S = np.arange(-56, 57) * 900.0  # zones are whole quarters of an hour apart
_SAMPLE = 1 << 16  # lines of a recording that tell the clock of the intervals


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """Intervals: ends in the file's unit, label, person, session (None: of any) and line."""

    start_I: TimeArray
    end_I: TimeArray
    label_I: IntArray
    user_I: list[str | None]
    session_I: list[str | None]
    where_I: list[str]

    def of(self, user: str, take: Take) -> IntArray:
        """The intervals of a recording."""
        names = {None, user, stem(Path(take.file))}
        sessions = {None, take.session, stem(Path(take.file))}
        return np.array(
            [index for index, own in enumerate(zip(self.user_I, self.session_I, strict=True))
             if own[0] in names and own[1] in sessions], np.int64)  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Intervals:
    """What a labels file states; ``labels`` are codes by text, ``skipped`` lines of no use."""

    path: Path
    kind: TimeKind
    labels: Mapping[str, int]
    skipped: tuple[str, ...]
    _table: _Table
    _shift_s: float | None
    _unit_s: float = 1.0
    _is_daily: bool = False
    _hit_I: BoolArray = field(default_factory=lambda: np.zeros(0, bool))

    def settle(
        self, recordings: Sequence[tuple[str, Take, TimeArray]], unit: str, read_as: list[str]
    ) -> None:
        """Find the unit of the intervals' times, and refuse a clock that is not the recordings'.

        ``recordings`` are person, recording and seconds of lines; ``unit`` is that of their column.
        """
        people = {user for user, _, _ in recordings}
        table = self._table
        if len(people) > 1 and not all(map(any, zip(table.user_I, table.session_I, strict=True))):
            raise DatasetFormatError(
                f"{self.path}: got intervals of nobody, wanted a column of the name of --user or "
                f"--session: the recordings are of {len(people)} people"
            )
        kinds = {take.kind for _, take, _ in recordings} | {self.kind}
        self._is_daily = "clock" in kinds and self._shift_s is not None
        lines = [(table.of(user, take), self._own(time_L[:: len(time_L) // _SAMPLE + 1]))
                 for user, take, time_L in recordings]  # fmt: skip
        shift_s = self._shift_s or 0.0
        names = dict.fromkeys([unit, "s", "ms", "us", "ns"]) if self.kind == "number" else ("s",)
        hits = {name: int(self._hits(lines, UNITS_S[name], shift_s).sum()) for name in names}
        chosen = max(hits, key=hits.__getitem__)
        self._unit_s, count = UNITS_S[chosen], len(table.label_I)
        if hits[chosen] <= _FEW * count:
            found = [int(self._hits(lines, self._unit_s, shift_s + s).sum()) for s in _SHIFTS_S]
            best = int(np.argmax(found))
            guess = f"; is --label-shift {shift_s + _SHIFTS_S[best]:g} meant, another zone?"
            first = min((line[0] for _, line in lines if len(line)), default=0.0)
            raise DatasetFormatError(
                f"{self.path}: got {hits[chosen]} of {count} intervals that hold a line, wanted "
                f"them on the clock of the lines: the first interval starts at "
                f"{table.start_I.min() * self._unit_s + shift_s:.10g} s, the first line is at "
                f"{first:.10g} s"
                + (guess if found[best] > count / 2 else "; --label-shift sets them")
            )
        self._hit_I = np.zeros(count, bool)
        what = f"times in {chosen}" if self.kind == "number" else "dates and times"
        read_as.append(f"{self.path.name}: {count} intervals, {what}")

    def label(self, user: str, take: Take, time_L: TimeArray) -> IntArray:
        """The label of each line of a recording by its seconds, ``NO_LABEL`` or ``TWO_LABELS``."""
        own_L = self._own(time_L) + _EXACT_S
        if self._is_daily and np.ptp(time_L) > _DAY_S:
            raise DatasetFormatError(
                f"{take.file}: got a recording of {np.ptp(time_L) / 3600:.3g} hours and intervals "
                "by the time of day, wanted dates in both"
            )
        bounds, label_S = self._segments(self._table.of(user, take), own_L)
        found: IntArray = label_S[np.searchsorted(bounds, own_L, side="right") - 1]
        return found

    def remarks(self) -> list[str]:
        """Intervals that hold no line."""
        empty = np.flatnonzero(~self._hit_I)
        if not len(empty):
            return []
        words = f"{len(empty)} of {len(self._hit_I)} intervals hold"
        return [f"{self.path.name}: {words} no line, first {self._table.where_I[empty[0]]}"]

    def _own(self, time_L: TimeArray) -> TimeArray:
        """Seconds on the clock of the intervals."""
        if self._shift_s is None:
            return np.asarray(time_L - time_L.min())
        return np.asarray(time_L % _DAY_S) if self._is_daily else time_L

    def _ends(self, index: IntArray, unit_s: float, shift_s: float) -> tuple[TimeArray, TimeArray]:
        table = self._table
        start_I, end_I = table.start_I[index] * unit_s, table.end_I[index] * unit_s
        start_I, end_I = start_I + shift_s, end_I + shift_s
        if self._is_daily:
            length_I = end_I - start_I
            start_I = start_I % _DAY_S
            end_I = start_I + np.where(length_I < 0, length_I + _DAY_S, length_I)
        return start_I, end_I

    def _hits(
        self, lines: Iterable[tuple[IntArray, TimeArray]], unit_s: float, shift_s: float
    ) -> BoolArray:
        """Which intervals hold a line."""
        hit_I = np.zeros(len(self._table.label_I), bool)
        for index, own_L in lines:
            start_I, end_I = self._ends(index, unit_s, shift_s)
            sorted_L = np.sort(own_L)
            for turn_s in (0.0, _DAY_S) if self._is_daily else (0.0,):  # over midnight
                first, last = np.searchsorted(sorted_L + turn_s, [start_I, end_I])
                hit_I[index] |= first < last
        return hit_I

    def _segments(self, index: IntArray, own_L: TimeArray) -> tuple[TimeArray, IntArray]:
        """Ascending ends of intervals, and the label after each."""
        start_I, end_I = self._ends(index, self._unit_s, self._shift_s or 0.0)
        self._hit_I |= self._hits([(index, own_L)], self._unit_s, self._shift_s or 0.0)
        label_I = self._table.label_I[index]
        if self._is_daily:  # what lies after midnight lies before the others, too
            start_I = np.concatenate([start_I, start_I - _DAY_S])
            end_I, label_I = np.concatenate([end_I, end_I - _DAY_S]), np.tile(label_I, 2)
        bounds = np.unique(np.concatenate([start_I, end_I, [np.inf]]))
        label_S = np.full(len(bounds), NO_LABEL)
        for start, end, label in zip(start_I, end_I, label_I, strict=True):
            first, last = np.searchsorted(bounds, [start, end])
            own_S = label_S[first:last]  # a view
            own_S[:] = np.where((own_S == NO_LABEL) | (own_S == label), label, TWO_LABELS)
        return bounds, label_S


def read_intervals(columns: CsvColumns) -> Intervals:
    """Read the labels file or folder that ``columns`` names; raises DatasetFormatError where most
    of it is of no use."""
    spec = columns.intervals
    assert spec is not None
    assert columns.label is not None
    found = find_files(spec.path)
    tally, labels = LineTally(), dict[str, int]()
    rows: list[tuple[float, float, int, str | None, str | None, str]] = []
    kinds: list[TimeKind] = []
    for file in found.files:
        plain = CsvColumns(
            sensors=(spec.end,), time=spec.start, label=columns.label, delimiter=None,
            encoding=columns.encoding, decimal=columns.decimal,
        )  # fmt: skip
        names = [column_name(name).casefold() for name in _open(file, plain).names]
        stated = path_fields(columns.path)
        by_path = {"user": "user" if not columns.user else None,
                   "session": "session" if "session" in stated else None}  # fmt: skip
        known = {
            what: name for what in by_path
            if (name := getattr(columns, what) or by_path[what]) and name.casefold() in names
        }  # fmt: skip
        opened = _open(file, replace(plain, user=known.get("user"), session=known.get("session")))
        kinds.append(opened.time_kind)
        whole = None if found.files[0].path == spec.path else file.stated["user"]
        for block in opened.rows:
            for number, reason, what in block.broken:
                tally.skip(file.name, reason, f"line {number}{what}")
            tally.lines += len(block.broken) + len(block.line_L)
            rows += _rows(file, opened, block, columns, known, labels, tally, whole)
    tally.check_share(spec.path)
    if len(set(kinds)) > 1:
        raise DatasetFormatError(
            f"{spec.path}: got times of the kinds {sorted(set(kinds))}, wanted one in all files"
        )
    start, end, label, user, session, where = zip(*rows, strict=True)
    table = _Table(
        start_I=np.array(start), end_I=np.array(end), label_I=np.array(label, np.int64),
        user_I=list(user), session_I=list(session), where_I=list(where),
    )  # fmt: skip
    return Intervals(
        path=spec.path, kind=kinds[0], labels=labels, skipped=tally.words(), _table=table,
        _shift_s=spec.shift_s,
    )  # fmt: skip


def _open(file: RecordingFile, columns: CsvColumns) -> OpenFile:
    return open_recording(file.path, columns, lambda num_bytes: None)


def _rows(
    file: RecordingFile, opened: OpenFile, block: Rows, columns: CsvColumns,
    known: Mapping[str, str], labels: dict[str, int], tally: LineTally, whole: str | None,
) -> Iterator[tuple[float, float, int, str | None, str | None, str]]:  # fmt: skip
    """The intervals of a block's lines that can be used; the others are counted."""
    spec = columns.intervals
    assert spec is not None
    assert columns.label is not None
    stamps = StampReader(file.name, opened.time_kind)
    ends = [_seconds(opened, stamps, name, block.columns[name]) for name in (spec.start, spec.end)]
    texts = {name: [tidy(str(text or "")) for text in block.columns[name].to_pylist()]
             for name in (columns.label, *known.values())}  # fmt: skip
    for at, number in enumerate(block.line_L.tolist()):
        start, end = (float(each[at]) for each in ends)
        text = texts[columns.label][at]
        label = columns.map_label.get(text, "" if is_missing(text) else text)
        of = {what: _name(texts[name][at]) for what, name in known.items()}
        reason = ""
        if not np.isfinite([start, end]).all():
            reason = f"{spec.start} or {spec.end} is not a time"
        elif end <= start and opened.time_kind != "clock":
            reason = "an interval that ends before it starts"
        elif not label:
            reason = f"no {columns.label}"
        elif missing := [known[what] for what, name in of.items() if is_missing(name)]:
            reason = f"no {missing[0]}"
        if reason:
            tally.skip(file.name, reason, f"line {number}")
            continue
        code = labels.setdefault(label, len(labels))
        where = f"line {number}" if whole is None else f"{file.name}, line {number}"
        yield start, end, code, of.get("user", whole), of.get("session"), where


def _seconds(opened: OpenFile, stamps: StampReader, name: str, array: pa.Array) -> TimeArray:
    """A column of starts or ends, NaN for what is no time."""
    if pa.types.is_floating(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    if opened.time_kind != "number":
        return stamps.seconds(array)
    decimal = opened.decimals.get(name, ".")
    numbers = [number_of(text or "", decimal) for text in array.to_pylist()]
    return np.array([np.nan if number is None else number for number in numbers])


def _name(text: str) -> str:
    """A person's or recording's name; files may be named with their suffix."""
    return stem(Path(text)) if text else text
