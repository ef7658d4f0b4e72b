"""Dates with times and times of day, as people's programs write them, in seconds."""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from graft.errors import DatasetFormatError

TimeKind = Literal["number", "stamp", "clock"]
_EPOCH = datetime.date(1970, 1, 1).toordinal()
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2})(?:[.,:](\d+))?\s*(?:([AaPp])\.?[Mm]?\.?)?")
_HALF = r"(?:\s*([ap])\.?m\.?)?"
_ZONE = r"(?:\s*(z|[a-z]{3,4}|(?:utc|gmt)?[-+]\d{1,2}(?::?\d{2})?))?(?:\s*\[.*\])?"
_TIME = r"(\d{1,2})[:\-h.](\d{2})(?:[:\-m.](\d{2}))?(?:[.,:_](\d+))?s?" + _HALF + _ZONE
_DATED = re.compile(r"(\d{1,4})[-/.](\d{1,2})[-/.](\d{1,4})\.?[t_,\s]+" + _TIME)
_DAY_NAMED = re.compile(r"(\d{1,2})[-./\s]+([^\W\d_]{3,9})[-.,/\s]+(\d{2,4})[t_,\s]+" + _TIME)
_MONTH_NAMED = re.compile(
    r"([^\W\d_]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})[,\s]+" + _TIME
)
# As C prints a time: the year stands last.
_YEAR_LAST = re.compile(r"([^\W\d_]{3} +\d{1,2}) ([\d:.]+)( [a-z]{3,4})? (\d{4})")
_COMPACT = re.compile(
    r"((?:19|20)\d{2})(\d{2})(\d{2})[t_\s-]?([01]\d|2[0-3])([0-5]\d)([0-5]\d)[.,_]?(\d*)()" + _ZONE
)
_WEEKDAY = re.compile(r"[^\W\d_]{2,10}\.?,?\s+(?=\d|[^\W\d_]{3,9}\.?\s+\d)")
# The first three letters of months in English and German, and of zones the hours from UTC.
_MONTHS = {
    name: number
    for number, names in enumerate(
        ("jan", "feb", "mar mär mrz", "apr", "may mai", "jun", "jul", "aug", "sep", "oct okt",
         "nov", "dec dez"), start=1)
    for name in names.split()
}  # fmt: skip
_ZONES = {"z": 0, "utc": 0, "gmt": 0, "wet": 0, "bst": 1, "cet": 1, "mez": 1, "west": 1, "cest": 2,
          "mesz": 2, "eet": 2, "eest": 3, "msk": 3, "jst": 9, "kst": 9, "est": -5, "edt": -4,
          "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7}  # fmt: skip


def time_kind(sample: str) -> TimeKind:
    """What a column's first time is: a number, a date and time, or a time of day."""
    if _CLOCK.fullmatch(sample):
        return "clock"
    is_number = re.fullmatch(r"[-+]?[\d.,]+([eE][-+]?\d+)?", sample) is not None
    is_compact = len(sample) in (14, 17, 20) and _COMPACT.fullmatch(sample) is not None
    return "number" if (is_number and not is_compact) or not sample else "stamp"


class StampReader:
    """Reads the times of one file; whether the month comes before the day is the file's.

    ``where`` names the file in errors.
    """

    def __init__(self, where: str, kind: TimeKind) -> None:
        self._where, self._kind = where, kind
        self._is_month_first: bool | None = None
        self._unclear = ""

    def seconds(self, texts: pa.Array) -> npt.NDArray[np.float64]:
        """Seconds of dates with times (since 1970; UTC where no zone is named) or of times of day;
        NaN for a text that is none. Raises DatasetFormatError for days and months in both orders.
        """
        if self._kind == "stamp":
            for zone in (None, "UTC"):
                try:
                    stamps = pc.utf8_trim_whitespace(texts).cast(pa.timestamp("ns", zone))
                except pa.ArrowInvalid:
                    continue
                return np.asarray(stamps.cast(pa.int64()).to_numpy(zero_copy_only=False)) / 1e9
            plain = [text.strip(" \t\"'").lower() if text else "" for text in texts.to_pylist()]
            found = [_parts(text) for text in plain]
            self._settle_order(found, plain)
            return np.array([self._stamp_s(each) for each in found], float)
        texts = texts.to_pylist()
        return np.array(
            [_clock_s(text.strip(" \t\"'")) if text else np.nan for text in texts], float
        )

    def _settle_order(self, found: Sequence["_Parts | None"], plain: Sequence[str]) -> None:
        """Find out whether months come first: by a day after the 12th, by AM and PM, or else by
        what lets the times follow each other."""
        unclear: dict[tuple[int, int, int], str] = {}
        proof: dict[bool, str] = {}
        has_half = False
        for each, text in zip(found, plain, strict=True):
            if each is None or not each.is_open or each.date in unclear:
                continue
            first, second, _ = each.date
            has_half |= each.has_half
            if (first > 12) != (second > 12):
                proof.setdefault(second > 12, text)
            else:
                unclear[each.date] = text
        known = self._is_month_first
        wrong = next((order for order in proof if order != known), None)
        if len(proof) == 2 or (known is not None and wrong is not None):
            self._refuse(proof[bool(wrong)], "dates with day and month in the other order")
        if proof:
            known = next(iter(proof))
        elif known is None and has_half:
            known = True
        elif known is None and len(unclear) > 1:
            days = [[_days(date, order) or 0 for date in unclear] for order in (False, True)]
            known = bool(np.ptp(days[1]) < np.ptp(days[0]))
        if known and self._is_month_first is None and self._unclear:
            self._refuse(next(iter((proof or unclear).values())), f"{self._unclear!r}, day first")
        self._is_month_first = known
        self._unclear = self._unclear or next(iter(unclear.values()), "")

    def _refuse(self, text: str, after: str) -> None:
        raise DatasetFormatError(
            f"{self._where}: got {text!r} after {after}, wanted one order of day and month in a "
            "file, or the year first"
        )

    def _stamp_s(self, parts: "_Parts | None") -> float:
        if parts is None:
            return np.nan
        days = _days(parts.date, not parts.is_open or bool(self._is_month_first))
        return np.nan if days is None else float(days * 86_400 * 10**9 + parts.nanoseconds) / 1e9


@dataclass(frozen=True, slots=True)
class _Parts:
    """A date as (month, day, year), or as it stands where its order is open, and nanoseconds."""

    date: tuple[int, int, int]
    is_open: bool
    nanoseconds: int
    has_half: bool


def _parts(text: str) -> _Parts | None:
    if found := _DATED.fullmatch(text) or _COMPACT.fullmatch(text):
        one, two, three, *time = found.groups()
        if len(one) == 4:
            return _with_time((int(two), int(three), int(one)), False, time)
        return _with_time((int(one), int(two), _year(three)), True, time)
    if text[:3] not in _MONTHS:
        text = _WEEKDAY.sub("", text, count=1)
    text = _YEAR_LAST.sub(r"\1 \4 \2\3", text)
    if found := _DAY_NAMED.fullmatch(text):
        day, month, year, *time = found.groups()
    elif found := _MONTH_NAMED.fullmatch(text):
        month, day, year, *time = found.groups()
    else:
        return None
    number = _MONTHS.get(month[:3])
    return None if number is None else _with_time((number, int(day), _year(year)), False, time)


def _year(text: str) -> int:
    return int(text) + (2000 if len(text) <= 2 else 0)


def _with_time(date: tuple[int, int, int], is_open: bool, time: list[str]) -> _Parts | None:
    hour, minute, second, part, half, zone = time
    hours, shift_s = int(hour), 0
    if half:
        hours = hours % 12 + (12 if half == "p" else 0)
    if zone and zone[-1].isdigit():
        sign, digits = re.fullmatch(r"\D*?([-+])(.*)", zone).groups()  # type: ignore[union-attr]
        plain = digits.replace(":", "")
        minutes = int(plain[:-2]) * 60 + int(plain[-2:]) if len(plain) > 2 else int(plain) * 60
        shift_s = (-60 if sign == "-" else 60) * minutes
    elif zone:
        if zone not in _ZONES:
            return None
        shift_s = 3600 * _ZONES[zone]
    if hours > 24 or int(minute) > 59 or int(second or 0) > 60:
        return None
    seconds = hours * 3600 + int(minute) * 60 + int(second or 0) - shift_s
    return _Parts(date, is_open, seconds * 10**9 + int(f"{part or 0:0<9}"[:9]), bool(half))


def _days(date: tuple[int, int, int], is_month_first: bool) -> int | None:
    """Days since 1970; None for a date that is none."""
    first, second, year = date
    month, day = (first, second) if is_month_first else (second, first)
    try:
        return datetime.date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        return None


def _clock_s(text: str) -> float:
    found = _CLOCK.fullmatch(text)
    if found is None:
        return np.nan
    hours, minutes, seconds, part, half = found.groups()
    hour = int(hours or 0)
    if half:
        hour = hour % 12 + (12 if half in "pP" else 0)
    return hour * 3600 + int(minutes) * 60 + float(f"{seconds}.{part or 0}")
