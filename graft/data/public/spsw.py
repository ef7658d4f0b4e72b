"""Reader of SP-SW: five activities of 23 people with a phone and a watch at once.

Legend: L lines of a recording, C columns, N windows.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from graft.core.records import FloatArray, IntArray
from graft.core.streams import Streams
from graft.data.domain import DomainData
from graft.data.public.archives import Originals
from graft.data.public.recordings import (
    RowArray,
    Tally,
    cut_windows,
    describe,
    intact_rows,
    parse_rows,
    runs,
)
from graft.errors import DatasetFormatError, DomainEmptyError

WINDOW = 128
STEP = 64
PERIOD_MS = 10.0
STANDARD_GRAVITY = 9.80665  # m/s^2; acceleration in g is of the same order as rad/s
LABELS = ("SEATED", "STANDING_UP", "WALKING", "TURNING", "SITTING_DOWN")
COLUMNS = ("x_acc", "y_acc", "z_acc", "x_gyro", "y_gyro", "z_gyro", "timestamp", "label")

_PATTERN = r"(?P<who>s\d+)/(?P=who)_(?P<number>\d+)_(?P<device>sp|sw)\.csv"
_STREAMS = {"sp": "phone", "sw": "watch"}

DESCRIPTION = describe("spsw")


def read_spsw(originals: Originals, tally: Tally) -> Iterator[DomainData]:
    """One domain a subject and device, "s01@sp" (phone) or "s01@sw" (watch).

    A window is (6, 128): acceleration in g and angular speed in rad/s, 1.28 s at 100 Hz,
    columns found by their header so that both devices give one order. Its label is the
    majority of its rows', the class listed first at a tie; its group is the execution, one
    recording file. No window spans a corrupt line.

    The devices sample evenly, the phone every 9.76 ms and the watch every 9.59 ms; the time
    stamps jitter because they tell when the system delivered a sample. So each recording is
    brought to 100 Hz from its mean interval, not from its single time stamps.
    Raises DatasetFormatError for no recording, or a header or a label that is not as published.
    """
    files: dict[str, list[str]] = {}
    for name, match in originals.matching(_PATTERN):
        files.setdefault(f"{match['who']}@{match['device']}", []).append(name)
    _require(files, originals)
    for domain_id, names in sorted(files.items()):
        parts = [
            (x, y_N, group)
            for group, name in enumerate(names)
            for x, y_N in _read_recording(originals, name, tally)
        ]
        yield tally.domain(domain_id, DESCRIPTION.task.sample_shape, parts)


def read_spsw_pairs(originals: Originals, tally: Tally) -> Iterator[DomainData]:
    """One domain a subject, "s01"; a sample is the same 1.28 s on both devices, in two streams.

    ``phone`` and ``watch`` are each as ``read_spsw`` gives a window. The two recordings of an
    execution are paired by their time stamps, which both devices take from synchronised clocks:
    windows lie in the time that both have, and the label is the majority of both devices'
    rows. A subject whom one device never recorded lacks that stream, but an execution that only
    one of a subject's two devices recorded is skipped and counted. No window spans a corrupt line
    of either. Raises DatasetFormatError as ``read_spsw`` does.
    """
    files: dict[str, dict[int, dict[str, str]]] = {}
    for name, match in originals.matching(_PATTERN):
        execution = files.setdefault(match["who"], {}).setdefault(int(match["number"]), {})
        execution[match["device"]] = name
    _require(files, originals)
    for subject, executions in sorted(files.items()):
        present = {device for names in executions.values() for device in names}
        parts: list[tuple[Streams, IntArray, int]] = []
        for group, (_, names) in enumerate(sorted(executions.items())):
            if names.keys() != present:
                tally.add_skipped(next(iter(names.values())), 1)
                continue
            recordings = {device: _read_rows(originals, name, tally)
                          for device, name in sorted(names.items())}  # fmt: skip
            parts += [(x, y_N, group) for x, y_N in _cut_pair(recordings)]
        if not parts:
            raise DomainEmptyError(
                f"{originals.label}: {subject}: got no window, wanted one at least"
            )
        streams = {_STREAMS[device]: np.concatenate([x[_STREAMS[device]] for x, _, _ in parts])
                   for device in sorted(present)}  # fmt: skip
        yield tally.of_rows(
            subject,
            Streams(streams),
            np.concatenate([y_N for _, y_N, _ in parts]),
            np.repeat([group for _, _, group in parts], [len(x) for x, _, _ in parts]),
        )


def _cut_pair(recordings: Mapping[str, RowArray]) -> Iterator[tuple[Streams, IntArray]]:
    """(streams, majority labels) of the time that all recordings have, without corrupt lines."""
    intact_ms = [rows_LC[intact_rows(rows_LC), 6] for rows_LC in recordings.values()]
    if not all(map(len, intact_ms)):
        return
    start_ms = max(time_L[0] for time_L in intact_ms)
    stop_ms = min(time_L[-1] for time_L in intact_ms)
    even = {device: _even(rows_LC, start_ms, stop_ms) for device, rows_LC in recordings.items()}
    valid_E = ~np.logical_or.reduce([np.isnan(even_EC).any(axis=1) for even_EC in even.values()])
    for start, stop in runs(np.zeros(len(valid_E), np.int64), valid_E):
        votes_NK = np.sum([_votes(even_EC[start:stop, 6]) for even_EC in even.values()], axis=0)
        windows = {_STREAMS[device]: cut_windows(even_EC[start:stop, :6], WINDOW, STEP)
                   for device, even_EC in even.items()}  # fmt: skip
        yield Streams(windows), votes_NK.argmax(axis=1)


def _read_recording(
    originals: Originals, name: str, tally: Tally
) -> Iterator[tuple[FloatArray, IntArray]]:
    """(x, labels) of every stretch of a recording without corrupt lines."""
    rows_LC = _read_rows(originals, name, tally)
    for start, stop in runs(np.zeros(len(rows_LC), dtype=np.int64), intact_rows(rows_LC)):
        run_LC = rows_LC[start:stop]
        even_EC = _even(run_LC, run_LC[0, 6], run_LC[-1, 6])
        yield cut_windows(even_EC[:, :6], WINDOW, STEP), _votes(even_EC[:, 6]).argmax(axis=1)


def _require(files: Mapping[str, object], originals: Originals) -> None:
    if not files:
        raise DatasetFormatError(
            f"{originals.label}: got no sXX/sXX_YY_sp.csv or sXX/sXX_YY_sw.csv, wanted recordings"
        )


def _read_rows(originals: Originals, name: str, tally: Tally) -> RowArray:
    """A recording's lines in the order of COLUMNS, labels by index, NaN where one is corrupt."""
    header, _, body = originals.read(name).partition(b"\n")
    columns = header.decode("utf-8", "replace").strip().split(",")
    if sorted(columns) != sorted(COLUMNS):
        raise DatasetFormatError(
            f"{originals.label}: {name}: got columns {columns}, wanted {list(COLUMNS)}"
        )
    # Labels become numbers first, so that one numeric parser finds every corrupt line.
    for index, label in enumerate(LABELS):
        body = body.replace(b"," + label.encode(), b"," + str(index).encode())
    rows_LC = parse_rows(body, len(COLUMNS), ",")[:, [columns.index(column) for column in COLUMNS]]
    rows_LC[~np.isin(rows_LC[:, 7], range(len(LABELS)))] = np.nan
    valid_L = intact_rows(rows_LC)
    tally.add_skipped(name, int((~valid_L).sum()))
    tally.add_recording(rows=int(valid_L.sum()))
    return rows_LC


def _even(rows_LC: RowArray, start_ms: float, stop_ms: float) -> RowArray:
    """Acceleration in g, angular speed and label (E, 7) every 10 ms from start to stop, NaN beside
    a corrupt line; a recording's lines count as evenly spaced between its first and last."""
    line_L = np.flatnonzero(intact_rows(rows_LC))
    first, last = line_L[[0, -1]]
    first_ms = rows_LC[first, 6]
    duration_ms = max(rows_LC[last, 6] - first_ms, PERIOD_MS)
    num_even = int((stop_ms - start_ms) // PERIOD_MS) + 1
    at_ms = start_ms - first_ms + np.arange(max(num_even, 0)) * PERIOD_MS
    line_E = first + at_ms * (last - first) / duration_ms
    source_L = np.arange(len(rows_LC))
    even_EC = np.stack([np.interp(line_E, source_L, rows_LC[:, c]) for c in range(7)], axis=1)
    even_EC[:, :3] /= STANDARD_GRAVITY
    even_EC[:, 6] = rows_LC[np.rint(line_E).astype(np.int64).clip(0, len(rows_LC) - 1), 7]
    return even_EC


def _votes(label_E: RowArray) -> IntArray:
    """How many of each window's rows have each label (N, 5)."""
    one_hot_EK = np.eye(len(LABELS))[label_E.astype(np.int64)]
    votes_NK: IntArray = cut_windows(one_hot_EK, WINDOW, STEP).sum(axis=2)
    return votes_NK
