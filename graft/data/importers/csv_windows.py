"""A person's lines as unbroken parts at one rate, and windows of them.

A part is planned from times and labels alone; its readings are fetched when windows are written.

Legend: L lines, K sensors, N windows, T samples of a window.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d

from graft.core.records import BoolArray, FloatArray, IntArray
from graft.data.importers import csv_account as account
from graft.data.importers.csv_clock import MANY, PAUSE, Clock, Pace, mean_step, read_clock
from graft.data.importers.csv_lines import Readings, Take
from graft.data.public.recordings import cut_windows
from graft.errors import ConfigError

RowArray = npt.NDArray[np.float64]
# A gap longer than so many usual intervals lacks a line.
_GAP = 1.5
# Seconds since 1970 are exact to a quarter of a microsecond: equal lengths compare as equal.
_EXACT = 1 + 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Windowing:
    """How recordings become samples: ``window`` samples at ``rate_hz``, each ``step`` samples
    after the one before, none across two blocks of ``block_s`` seconds or more.

    Blocks are the groups that a split keeps whole, so that windows which overlap stay together.
    Gaps of at most ``max_gap_s`` are filled by linear interpolation; None: of three usual
    intervals, and none where a line was skipped.
    """

    rate_hz: float
    window: int = 128
    step: int = 64
    block_s: float = 10.0
    max_gap_s: float | None = None

    def __post_init__(self) -> None:
        values = (self.rate_hz, self.window, self.step, self.block_s)
        for name, value in zip(("rate", "window", "step", "block"), values, strict=True):
            if not 0 < value < math.inf:
                raise ConfigError(f"{name}: got {value}, wanted more than 0")
        if round(self.block_s * self.rate_hz) < self.window:
            raise ConfigError(
                f"block: got {self.block_s:g} s, wanted at least the {self.window} samples of "
                f"a window: {self.window / self.rate_hz:g} s"
            )
        most_s = self.window / self.rate_hz / 2
        if self.max_gap_s is not None and not 0 <= self.max_gap_s <= most_s:
            raise ConfigError(
                f"max-gap: got {self.max_gap_s:g} s, wanted at most half a window: {most_s:g} s"
            )

    def blocks(self, num_samples: int) -> list[tuple[int, int]]:
        """First sample and number of windows of each block of a part; blocks are even parts."""
        count = max(1, num_samples // round(self.block_s * self.rate_hz))
        size, more = divmod(num_samples, count)  # as np.array_split: a short rest would be lost
        starts = [index * size + min(index, more) for index in range(count + 1)]
        return [
            (start, (end - start - self.window) // self.step + 1)
            for start, end in pairwise(starts)
            if end - start >= self.window
        ]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Part:
    """Lines ``lines_L`` (a slice or indices) of one label without a break.

    ``time_L`` are their times in seconds after ``start_s``, None where they are at the rate;
    ``usual_s`` the recording's usual interval; ``take`` its number; ``sparse`` whether each sensor
    has lines of its own.
    """

    label: int
    lines_L: slice | IntArray
    time_L: RowArray | None
    usual_s: float
    num_samples: int
    sparse: bool = False
    take: int = 0
    start_s: float = 0.0

    def samples(self, values_LK: Readings, rate_hz: float) -> RowArray:
        """The readings at the rate. A faster recording is averaged over a sample's length first,
        because linear interpolation alone would fold high frequencies down."""
        if self.time_L is None:
            return np.asarray(values_LK[self.lines_L], np.float64)
        grid_L = self.time_L[0] + np.arange(self.num_samples) / rate_hz
        return self.at(values_LK, grid_L, rate_hz)

    def at(self, values_LK: Readings, grid_L: RowArray, rate_hz: float) -> RowArray:
        """The readings at these seconds after ``start_s``, averaged for a rate as samples are."""
        assert self.time_L is not None
        rows_LK = np.asarray(values_LK[self.lines_L], np.float64)
        out = np.empty((len(grid_L), rows_LK.shape[1]))
        for k, row_L in enumerate(rows_LK.T):
            own_L = ~np.isnan(row_L) if self.sparse else slice(None)
            time_L, value_L, usual_s = self.time_L[own_L], row_L[own_L], self.usual_s
            if self.sparse and len(time_L) > 1:
                usual_s = float(np.median(np.diff(time_L)))
            width = max(1, round(1 / (usual_s * rate_hz))) if usual_s else 1
            out[:, k] = np.interp(grid_L, time_L, uniform_filter1d(value_L, width, mode="nearest"))
        return out

    def windows(self, values_LK: Readings, windowing: Windowing) -> Iterator[FloatArray]:
        """The windows (N, K, T) of each block that has some."""
        samples_LK = self.samples(values_LK, windowing.rate_hz)
        for start, count in windowing.blocks(self.num_samples):
            stop = start + (count - 1) * windowing.step + windowing.window
            yield cut_windows(samples_LK[start:stop], windowing.window, windowing.step)

    def lines_used(self, windowing: Windowing) -> int:
        """How many of the part's lines lie in a window."""
        used_L = np.zeros(self.num_samples, bool)
        for start, count in windowing.blocks(self.num_samples):
            for window in range(count):
                first = start + window * windowing.step
                used_L[first : first + windowing.window] = True
        if self.time_L is None:
            return int(used_L.sum())
        index_L = np.floor((self.time_L - self.time_L[0]) * windowing.rate_hz + 0.5).astype(int)
        return int(used_L[np.minimum(index_L, self.num_samples - 1)].sum())


@dataclass(kw_only=True, slots=True)
class Plan:
    """What a person's lines give: parts with windows, and where the other lines went."""

    parts: list[Part] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    num_windows: int = 0
    longest: int = 0
    pauses: list[float] = field(default_factory=list)
    filled: int = 0
    late: int = 0
    turns: int = 0
    shared: float = 1.0
    limit_s: float = 0.0
    usual_s: float = 0.0

    def add(self, reason: str, count: int) -> None:
        self.lines[reason] = self.lines.get(reason, 0) + count


def recordings(lines_L: npt.NDArray[Any]) -> Iterator[tuple[int, IntArray | slice]]:
    """Number and lines of each of a person's recordings, in the order of their first lines."""
    takes, first = np.unique(lines_L["take"], return_index=True)
    if len(takes) == 1:
        yield int(takes[0]), slice(None)
        return
    for take in takes[np.argsort(first)]:
        yield int(take), np.flatnonzero(lines_L["take"] == take)


def pace_of(take: Take, user: str, time_L: RowArray) -> Pace:
    """What the check of units needs of a recording."""
    clock = read_clock(time_L, take.kind)
    burst = 0.0
    if clock.shared == 1 and clock.usual * PAUSE < mean_step(np.diff(clock.time_L[:MANY])):
        burst = read_clock(time_L, take.kind, bursts=True).usual
    return Pace(
        where=take.file if user in take.file else f"{take.file} ({user})", lines=len(time_L),
        usual=clock.usual, shared=clock.shared, distinct=clock.distinct,
        highest=float(max(time_L.max(), -time_L.min())), sample=take.sample, burst=burst,
    )  # fmt: skip


def plan_even(lines_L: npt.NDArray[Any], windowing: Windowing, plan: Plan) -> None:
    """Plan lines that have no times: they are at the rate, but for skipped ones."""
    skips_L = np.diff(lines_L["skips"])
    change_L = (np.diff(lines_L["label"]) != 0) | (np.diff(lines_L["take"]) != 0)
    time_L, bridged = None, np.zeros(len(skips_L), bool)
    if windowing.max_gap_s is not None:
        # A skipped line is a gap in time; those of another recording never are between these.
        bridged = (skips_L > 0) & (
            (skips_L + 1) / windowing.rate_hz <= windowing.max_gap_s * _EXACT
        )
        gaps_L = np.where(bridged, skips_L, 0) + 1
        time_L = np.concatenate([[0.0], np.cumsum(gaps_L)]) / windowing.rate_hz
        plan.filled += int((gaps_L[~change_L] - 1).sum())
    _plan_parts(
        None, lines_L["label"], time_L, 1 / windowing.rate_hz, windowing, plan,
        pause_L=np.zeros(len(skips_L), bool), skip_L=(skips_L > 0) & ~bridged, change_L=change_L,
    )  # fmt: skip


def plan_timed(
    index_L: IntArray | None, lines_L: npt.NDArray[Any], clock: Clock, unit_s: float,
    usual_s: float, windowing: Windowing, plan: Plan, values_LK: FloatArray | None,
) -> None:  # fmt: skip
    """Plan a recording with times; ``values_LK`` where each sensor has lines of its own.

    ``index_L`` are the lines among the person's; None: they are all of them, in their order.
    ``usual_s`` stands for the usual interval of a recording that is too short to have one.
    """
    if clock.order_L is not None:
        index_L = clock.order_L if index_L is None else index_L[clock.order_L]
        lines_L = lines_L[clock.order_L]
    time_L = clock.time_L
    time_L *= unit_s
    limit_s = PAUSE * usual_s
    if windowing.max_gap_s is not None:
        limit_s = max(windowing.max_gap_s, _GAP * usual_s)
    step_L = np.diff(time_L)
    began_L = np.zeros(len(step_L), bool)
    began_L[clock.starts - 1] = True
    label_L = np.diff(lines_L["label"]) != 0
    pause_L = (step_L > limit_s * _EXACT) & ~began_L
    skip_L = np.diff(lines_L["skips"]) != 0
    if clock.order_L is not None:  # sorted: where a line is lacking, it may be a skipped one
        skip_L = (step_L > _GAP * usual_s) & bool(skip_L.any())
    if windowing.max_gap_s is not None:
        skip_L = np.zeros(len(step_L), bool)
    if values_LK is not None:
        for k in range(values_LK.shape[1]):
            column_L = values_LK[:, k] if index_L is None else values_LK[index_L, k]
            own = np.flatnonzero(~np.isnan(column_L))
            gap_L = np.diff(time_L[own])
            own_limit_s = _EXACT * max(
                limit_s, PAUSE * float(np.median(gap_L)) if len(gap_L) else 0.0
            )
            for at in np.flatnonzero(gap_L > own_limit_s):
                pause_L[own[at] : own[at + 1]] = True
    is_own_L = lines_L["label"][1:] >= 0
    lack_L = is_own_L & (step_L > _GAP * usual_s) & ~(pause_L | skip_L | label_L | began_L)
    plan.filled += int((np.rint(step_L[lack_L] / usual_s) - 1).sum()) if usual_s else 0
    plan.pauses.extend(step_L[pause_L & ~label_L & is_own_L].tolist())
    plan.limit_s, plan.usual_s = limit_s, usual_s
    del step_L, lack_L  # recordings may be long
    plan.late += clock.late
    plan.turns += clock.turns
    plan.shared = max(plan.shared, clock.shared)
    _plan_parts(
        index_L, lines_L["label"], time_L, usual_s, windowing, plan, pause_L=pause_L,
        skip_L=skip_L, change_L=label_L | began_L, sparse=values_LK is not None,
        take=int(lines_L["take"][0]), start_s=clock.origin * unit_s,
    )  # fmt: skip


def _plan_parts(
    index_L: IntArray | None, label_L: IntArray, time_L: RowArray | None, usual_s: float,
    windowing: Windowing, plan: Plan, *, pause_L: BoolArray, skip_L: BoolArray,
    change_L: BoolArray, sparse: bool = False, take: int = 0, start_s: float = 0.0,
) -> None:  # fmt: skip
    if not len(label_L):
        return
    cuts = np.flatnonzero(pause_L | skip_L | change_L)
    starts, stops = np.append(0, cuts + 1), np.append(cuts + 1, len(label_L))
    length_P = stops - starts
    samples_P = length_P
    if time_L is not None:
        span_P = time_L[stops - 1] - time_L[starts]
        samples_P = (span_P * windowing.rate_hz + _EXACT - 1).astype(np.int64) + 1
    reason = np.zeros(len(cuts) + 2, np.int64)
    reason[1:-1] = np.select([pause_L[cuts], skip_L[cuts]], [2, 1], 0)
    worst_P = np.maximum(reason[:-1], reason[1:])
    is_own_P = label_L[starts] >= 0
    plan.longest = max(plan.longest, int(samples_P[is_own_P].max(initial=0)))
    short_P = is_own_P & (samples_P < windowing.window)
    for name, label in (
        (account.OUTSIDE, account.NO_LABEL),
        (account.DISPUTED, account.TWO_LABELS),
    ):
        plan.add(name, int(length_P[label_L[starts] == label].sum()))
    for code, name in enumerate((account.CHANGES, account.SKIPS, account.PAUSES)):
        plan.add(name, int(length_P[short_P & (worst_P == code)].sum()))
    for at in np.flatnonzero(is_own_P & ~short_P):
        start, stop = int(starts[at]), int(stops[at])
        part = Part(
            label=int(label_L[start]),
            lines_L=slice(start, stop) if index_L is None else index_L[start:stop],
            time_L=None if time_L is None else time_L[start:stop],
            usual_s=usual_s, num_samples=int(samples_P[at]), sparse=sparse,
            take=take, start_s=start_s,
        )  # fmt: skip
        windows = sum(count for _, count in windowing.blocks(part.num_samples))
        used = part.lines_used(windowing) if windows else 0
        plan.add(account.RESTS, stop - start - used)
        if windows:
            plan.add(account.IN_WINDOWS, used)
            plan.num_windows += windows
            plan.parts.append(part)
