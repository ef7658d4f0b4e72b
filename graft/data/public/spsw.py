"""Reader of SP-SW: five activities of 23 people with a phone and a watch at once.

Legend: L lines of a recording, C columns, N windows.
"""

from collections.abc import Iterator

import numpy as np

from graft.core.records import FloatArray, IntArray
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
from graft.errors import DatasetFormatError

WINDOW = 128
STEP = 64
PERIOD_MS = 10.0
STANDARD_GRAVITY = 9.80665  # m/s^2; acceleration in g is of the same order as rad/s
LABELS = ("SEATED", "STANDING_UP", "WALKING", "TURNING", "SITTING_DOWN")
COLUMNS = ("x_acc", "y_acc", "z_acc", "x_gyro", "y_gyro", "z_gyro", "timestamp", "label")

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
    for name, match in originals.matching(r"(?P<who>s\d+)/(?P=who)_\d+_(?P<device>sp|sw)\.csv"):
        files.setdefault(f"{match['who']}@{match['device']}", []).append(name)
    if not files:
        raise DatasetFormatError(
            f"{originals.label}: got no sXX/sXX_YY_sp.csv or sXX/sXX_YY_sw.csv, wanted recordings"
        )
    for domain_id, names in sorted(files.items()):
        parts = [
            (x, y_N, group)
            for group, name in enumerate(names)
            for x, y_N in _read_recording(originals, name, tally)
        ]
        yield tally.domain(domain_id, DESCRIPTION.task.sample_shape, parts)


def _read_recording(
    originals: Originals, name: str, tally: Tally
) -> Iterator[tuple[FloatArray, IntArray]]:
    """(x, labels) of every stretch of a recording without corrupt lines."""
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
    for start, stop in runs(np.zeros(len(rows_LC), dtype=np.int64), valid_L):
        yield _cut_run(rows_LC[start:stop])


def _cut_run(run_LC: RowArray) -> tuple[FloatArray, IntArray]:
    """(x (N, 6, 128), majority labels (N,)) of one run, brought to an even 100 Hz."""
    num_lines = len(run_LC)
    duration_ms = run_LC[-1, 6] - run_LC[0, 6]
    num_even = int(duration_ms // PERIOD_MS) + 1
    line_E = np.arange(num_even) * PERIOD_MS * (num_lines - 1) / max(duration_ms, PERIOD_MS)
    source_L = np.arange(num_lines)
    even_EC = np.stack([np.interp(line_E, source_L, run_LC[:, c]) for c in range(6)], axis=1)
    even_EC[:, :3] /= STANDARD_GRAVITY
    label_E = run_LC[np.rint(line_E).astype(np.int64).clip(0, num_lines - 1), 7].astype(np.int64)
    one_hot_EK = np.eye(len(LABELS))[label_E]
    votes_NK = cut_windows(one_hot_EK, WINDOW, STEP).sum(axis=2)
    return cut_windows(even_EC, WINDOW, STEP), votes_NK.argmax(axis=1)
