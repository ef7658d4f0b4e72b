"""Times that can be the lines' own: their unit, their order, lines that share one, pauses.

Legend: L lines of a recording in the order of the file, or of time once sorted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from graft.core.records import BoolArray, IntArray
from graft.data.importers.csv_stamps import TimeKind
from graft.errors import DatasetFormatError

TimeArray = npt.NDArray[np.float64]
# Times that lie further apart than so many usual intervals are a pause in the recording.
PAUSE = 3.0
# Recordings with fewer lines say too little of their rate.
FEW_LINES = 16
_RATE_APART = 2.0
MANY = 1 << 18  # lines tell a mean interval
_HALF_DAY_S = 43_200.0
# After how long a clock begins again: half a day without AM and PM, an hour without its number or
# where summer time ends, a counter of 16, 24 or 32 bits, also of microseconds in larger units.
_TURNS: Mapping[TimeKind, tuple[float, ...]] = {
    "clock": (2 * _HALF_DAY_S, _HALF_DAY_S, 3600.0),
    "stamp": (3600.0,),
    "number": tuple(2.0**bits / part for bits in (16, 24, 32) for part in (1, 1e3, 1e6)),
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Clock:
    """A recording's times, none before the one before but at ``starts``.

    ``order_L`` puts its lines in their order, None where they are; ``usual`` is the usual interval,
    0 where there is none; ``shared`` the usual number of lines of one time; ``distinct`` the usual
    interval between different times; ``late`` the number of lines that were sorted; ``turns`` how
    often the clock ran over and was taken on; ``origin`` what the times are counted from.
    """

    time_L: TimeArray
    order_L: IntArray | None
    starts: IntArray
    usual: float
    shared: float
    distinct: float
    late: int
    turns: int = 0
    origin: float = 0.0

    def seconds(self, unit_s: float) -> TimeArray:
        """The lines' times since the column's zero."""
        return (self.time_L + self.origin) * unit_s


def read_clock(time_L: TimeArray, kind: TimeKind, *, bursts: bool = False) -> Clock:
    """Put a recording's times in order and spread lines that share one.

    Lines that came late are sorted in where they fill gaps. Where the clock runs back over times
    that the recording has, it began anew: ``starts`` are the first lines after that. ``bursts``:
    lines far closer than their mean interval arrived together and are spread, too.
    """
    origin = float(time_L.min()) if kind == "number" else 0.0
    time_L = time_L - origin
    if kind == "clock":
        time_L += 2 * _HALF_DAY_S * np.cumsum(np.diff(time_L, prepend=time_L[0]) < -_HALF_DAY_S)
    time_L, turns = _taken_on(time_L, kind)
    step_L = np.diff(time_L)
    back_L = step_L < 0
    order_L: IntArray | None = None
    starts, late = np.empty(0, np.int64), 0
    if back_L.any():
        if _is_disorder(time_L, step_L, back_L):
            early = int((time_L > np.minimum.accumulate(time_L[::-1])[::-1]).sum())
            late = min(early, int((time_L < np.maximum.accumulate(time_L)).sum()))
            order_L = np.argsort(time_L, kind="stable")
            time_L = time_L[order_L]
        else:
            starts = np.flatnonzero(back_L) + 1
    del step_L, back_L  # recordings may be long
    distinct, shared = 0.0, 1.0
    is_spread = len(starts) > 0
    if len(time_L) > 1:
        pieces = np.split(time_L, starts) if is_spread else [time_L]
        spread = [_spread(_gathered(piece) if bursts else piece) for piece in pieces]
        _, shared, distinct = max(spread, key=lambda piece: len(piece[0]))
        is_spread |= spread[0][0] is not time_L
        time_L = np.concatenate([times for times, _, _ in spread]) if is_spread else time_L
    usual = distinct
    if is_spread:
        step_L = np.diff(time_L)
        ahead_L = step_L[step_L > 0]
        usual = float(np.median(ahead_L)) if len(ahead_L) else 0.0
    return Clock(time_L=time_L, order_L=order_L, starts=starts, usual=usual, shared=shared,
                 distinct=distinct, late=late, turns=turns, origin=origin)  # fmt: skip


def _taken_on(time_L: TimeArray, kind: TimeKind) -> tuple[TimeArray, int]:
    """Times of a clock that begins again after each turn, without the jumps back, and the number
    of turns; as they are where a jump back is anything else."""
    step_L = np.diff(time_L)
    back = np.flatnonzero(step_L < 0)
    if not len(back) or not (step_L > 0).any():
        return time_L, 0
    ahead_L = step_L[step_L > 0]
    usual = float(np.median(ahead_L))
    for turn in _TURNS[kind]:
        if (
            turn > 50 * usual
            and ((step_L[back] + turn > 0) & (step_L[back] + turn <= PAUSE * usual)).all()
        ):
            turns_L = np.zeros(len(time_L))
            turns_L[back + 1] = turn
            return time_L + np.cumsum(turns_L), len(back)
    return time_L, 0


def _is_disorder(time_L: TimeArray, step_L: TimeArray, back_L: BoolArray) -> bool:
    """Whether lines that lie before an earlier one fill gaps, and are no second recording."""
    if back_L.mean() > 0.25:
        return True
    ahead_L = step_L[step_L > 0]
    usual = float(np.median(ahead_L)) if len(ahead_L) else 0.0
    late_L = time_L < np.maximum.accumulate(time_L)
    order_L = np.argsort(time_L, kind="stable")
    gap_L = np.diff(time_L[order_L], prepend=-np.inf, append=np.inf)
    nearest_L = np.minimum(gap_L[:-1], gap_L[1:])[late_L[order_L]]
    return bool(nearest_L.mean() > 0.75 * usual)


def _gathered(time_L: TimeArray) -> TimeArray:
    """Times with those of a burst set to its first line's."""
    step_L = np.diff(time_L)
    if not len(step_L):
        return time_L
    is_first_L = np.append(True, step_L > mean_step(step_L) / 2)
    return time_L[np.maximum.accumulate(np.where(is_first_L, np.arange(len(time_L)), 0))]


def mean_step(step_L: TimeArray) -> float:
    """The mean interval without backward steps and the longest pauses; of the first lines, where
    there are many."""
    ahead_L = step_L[:MANY][step_L[:MANY] >= 0]
    return float(ahead_L[ahead_L <= np.quantile(ahead_L, 0.995)].mean()) if len(ahead_L) else 0.0


def _spread(time_L: TimeArray) -> tuple[TimeArray, float, float]:
    """Times (not falling) with lines of one time spread evenly to the next; usual number of lines
    of a time; usual interval between times."""
    step_L = np.diff(time_L)
    if (step_L > 0).all():
        return time_L, 1.0, float(np.median(step_L, overwrite_input=True)) if len(step_L) else 0.0
    first = np.concatenate([[0], np.flatnonzero(step_L > 0) + 1])
    count = np.diff(np.append(first, len(time_L)))
    stamp = time_L[first]
    gap = np.diff(stamp)
    distinct = float(np.median(gap)) if len(gap) else 0.0
    if len(first) == len(time_L) or not len(gap):
        return time_L, float(np.median(count)), distinct
    each = gap / count[:-1]
    usual = float(np.median(np.repeat(each, count[:-1])))
    # A part of a clock's tick at the beginning, or lines before a pause, have the usual interval.
    own = np.append(np.where(each > PAUSE / 2 * usual, usual, each), usual)
    offset = np.arange(len(time_L)) - np.repeat(first, count)
    out = np.repeat(stamp, count) + offset * np.repeat(own, count)
    if each[0] > PAUSE / 2 * usual and count[0] > 1:  # the recording began inside a tick
        out[: count[0]] = stamp[1] - usual * np.arange(count[0], 0, -1)
    return out, float(np.median(count)), distinct


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """What the check of units needs of one recording; ``usual`` in the column's own unit, and
    ``burst`` the usual interval where lines that arrive together are spread, 0 where none do."""

    where: str
    lines: int
    usual: float
    shared: float
    distinct: float
    highest: float
    sample: str
    burst: float = 0.0


def find_unit(
    paces: Sequence[Pace], rate_hz: float, unit: str | None, units_s: Mapping[str, float]
) -> tuple[str | None, bool]:
    """The unit with which the lines are at the wanted rate, and whether they arrive in bursts.

    None where no recording is long enough to tell. Raises DatasetFormatError where the lines
    cannot be at a rate within a factor of two, with a guess of what is meant.
    """
    telling = [pace for pace in paces if pace.lines >= FEW_LINES] or list(paces)
    still = [pace for pace in telling if not pace.usual and pace.lines > 1]
    telling = [pace for pace in telling if pace.usual]
    if still and (not telling or still[0].lines >= FEW_LINES):
        raise DatasetFormatError(_still_words(still[0]))
    if not telling:
        return None, False
    typical = sorted(telling, key=lambda pace: pace.usual)[(len(telling) - 1) // 2]
    usual = typical.usual
    every = [name for name, unit_s in units_s.items() if _fits(usual * unit_s, rate_hz)]
    # Minutes and hours are never guessed, days only where a spreadsheet or MATLAB counts them.
    units_s = {name: unit_s for name, unit_s in units_s.items() if unit_s <= 1 or name == unit
               or (name == "d" and _is_serial_day(typical.highest))}  # fmt: skip
    fitting = [name for name in every if name in units_s]
    burst = float(np.median([pace.burst or pace.usual for pace in telling]))
    bursting = [name for name, unit_s in units_s.items() if _fits(burst * unit_s, rate_hz)]
    is_burst = not fitting and bool(bursting) and unit in (None, *bursting)
    if is_burst:
        fitting = bursting
        telling = [replace(pace, usual=pace.burst or pace.usual) for pace in telling]
    chosen = unit or (fitting[0] if fitting else _epoch_unit(typical.highest))
    if chosen is None or (fitting and chosen not in fitting):
        guess = f"is --time-unit {every[0]}?" if every else (
            f"--rate {_rate(usual, 's')} if they are seconds, {_rate(usual, 'ms')} if "
            "milliseconds; or name --time-unit to average a faster recording"
        )  # fmt: skip
        said = f"{usual * units_s[unit]:.6g} s" if unit else f"{usual:.6g}"
        raise DatasetFormatError(
            f"{typical.where}: got lines {said} apart by the time column, wanted --rate "
            f"{rate_hz:g}, {1 / rate_hz:.4g} s; {guess}"
        )
    for pace in telling:
        own = [name for name, unit_s in units_s.items() if _fits(pace.usual * unit_s, rate_hz)]
        if own and chosen not in own:
            raise DatasetFormatError(
                f"{pace.where}: got times in {own[0]} where those of {typical.where} are in "
                f"{chosen}, wanted one unit in all files"
            )
        check_pace(pace, units_s[chosen], rate_hz)
    return chosen, is_burst


def check_pace(pace: Pace, unit_s: float, rate_hz: float) -> None:
    """Raise DatasetFormatError for a recording with too few lines for the rate, or two in one."""
    own_hz = 1 / (pace.usual * unit_s)
    if own_hz * _RATE_APART < rate_hz * (1 - 1e-3):
        raise DatasetFormatError(
            f"{pace.where}: got lines {pace.usual * unit_s:.6g} s apart, {own_hz:.4g} a second, "
            f"wanted --rate {rate_hz:g}; most of each window would be invented. Is --rate "
            f"{own_hz:.3g} meant, or another --time-unit?"
        )
    is_shortened = "e+" in pace.sample.casefold() and pace.shared > 1
    if is_shortened:
        raise DatasetFormatError(_still_words(pace))
    times_hz = 1 / (pace.distinct * unit_s) if pace.distinct else 0.0
    if pace.shared >= 2 and 0.8 < times_hz / rate_hz < 1.25:
        raise DatasetFormatError(
            f"{pace.where}: got {pace.shared:g} lines of each time, and times at "
            f"{times_hz:.4g} Hz, wanted one line of a time at --rate {rate_hz:g}: name the column "
            "that tells people (--user) or recordings (--session) apart, or remove doubled lines"
        )


def _still_words(pace: Pace) -> str:
    shortened = "e+" in pace.sample.casefold()
    why = "a spreadsheet shortened it: export it with all its digits" if shortened else (
        "the column has too coarse a clock"
    )  # fmt: skip
    count = pace.lines if not pace.usual else pace.shared
    return (
        f"{pace.where}: got {count:g} lines that share a time such as {pace.sample}, wanted times "
        f"that tell lines apart; {why}, or leave out --time"
    )


def _fits(usual_s: float, rate_hz: float) -> bool:
    ratio = usual_s * rate_hz
    return 1 / _RATE_APART * (1 - 1e-3) <= ratio <= _RATE_APART * (1 + 1e-3)


def _rate(usual: float, unit: str) -> str:
    return f"{1 / usual / {'s': 1.0, 'ms': 1e-3}[unit]:.4g}"


def _is_serial_day(highest: float) -> bool:
    return 30_000 < highest < 75_000 or 690_000 < highest < 770_000


def _epoch_unit(highest: float) -> str | None:
    """The unit in which a time lies between 1990 and 2100, as clocks since 1970 count."""
    for name, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)):
        if 6.3e8 < highest / scale < 4.1e9:
            return name
    return None
