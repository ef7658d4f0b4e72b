"""Reader of HAPT: activities and postural transitions of 30 people with a waist phone.

Legend: L lines of a recording, N windows.
"""

from collections.abc import Iterator

import numpy as np

from graft.core.records import FloatArray
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

DESCRIPTION = describe("hapt")


def read_hapt(originals: Originals, tally: Tally) -> Iterator[DomainData]:
    """One domain a user, "user01" to "user30", recordings in the order they were made.

    A window is (6, 128): acceleration in g and angular speed in rad/s, 2.56 s at 50 Hz. It
    lies inside one labelled segment, which is its group, and never spans a corrupt line.
    Raises DatasetFormatError where a file is missing, or a label points outside its recording.
    """
    label_rows = _tallied(originals.only(r"RawData/labels\.txt", "RawData/labels.txt"), 5, tally)
    segments = label_rows[intact_rows(label_rows)].astype(np.int64)
    for user in np.unique(segments[:, 1]).tolist():
        parts: list[tuple[FloatArray, int, int]] = []
        of_user = segments[segments[:, 1] == user]
        for experiment in np.unique(of_user[:, 0]).tolist():
            recording = _read_recording(originals, experiment, user, tally)
            in_recording = of_user[of_user[:, 0] == experiment]
            for activity, first, last in in_recording[:, 2:].tolist():
                _check_segment(originals, experiment, activity, first, last, len(recording))
                # The labels count lines from 1 and include the last one.
                segment = recording[first - 1 : last]
                group = parts[-1][2] + 1 if parts else 0
                same = np.zeros(len(segment), dtype=np.int64)
                for start, stop in runs(same, intact_rows(segment)):
                    x = cut_windows(segment[start:stop], WINDOW, STEP)
                    if len(x):
                        parts.append((x, activity - 1, group))
        yield tally.domain(f"user{user:02d}", DESCRIPTION.task.sample_shape, parts)


def _read_recording(originals: Originals, experiment: int, user: int, tally: Tally) -> RowArray:
    """One recording's lines (L, 6); a line corrupt in either of its two files is NaN."""
    parts = []
    for sensor in ("acc", "gyro"):
        name = f"{sensor}_exp{experiment:02d}_user{user:02d}.txt"
        raw = originals.only(rf"RawData/{name}", f"RawData/{name}")
        parts.append(_tallied(raw, 3, tally, name))
    if len(parts[0]) != len(parts[1]):
        raise DatasetFormatError(
            f"{originals.label}: experiment {experiment} of user {user}: got {len(parts[0])} lines "
            f"of acc and {len(parts[1])} of gyro, wanted equally many"
        )
    rows_L6 = np.concatenate(parts, axis=1)
    rows_L6[np.isnan(rows_L6).any(axis=1)] = np.nan
    tally.add_recording(rows=len(rows_L6))
    return rows_L6


def _tallied(raw: bytes, num_columns: int, tally: Tally, name: str = "labels.txt") -> RowArray:
    rows = parse_rows(raw, num_columns, None)
    tally.add_skipped(name, int((~intact_rows(rows)).sum()))
    return rows


def _check_segment(
    originals: Originals, experiment: int, activity: int, first: int, last: int, num_lines: int
) -> None:
    if not (1 <= first <= last <= num_lines and 1 <= activity <= DESCRIPTION.task.num_classes):
        raise DatasetFormatError(
            f"{originals.label}: labels.txt, experiment {experiment}: got activity {activity}, "
            f"lines {first} to {last}; wanted an activity of 1 to "
            f"{DESCRIPTION.task.num_classes} and lines within 1 to {num_lines}"
        )
