"""Reader of the Myo readings data set: forearm EMG of wrist gestures, one domain a participant.

Legend: L lines of a file, N windows.
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

WINDOW = 200
STEP = 100
BLOCK_LINES = 2_000  # 10 s: one stretch of rest and one of the gesture
FULL_SCALE = 128.0

DESCRIPTION = describe("myo")


def read_myo(originals: Originals, tally: Tally) -> Iterator[DomainData]:
    """One domain a participant, "p06666" and so on, from the participant's first session.

    A folder ``_readings_<hand>_hand/<participant>-<session>`` is one session; the lowest
    session number counts, the right hand before the left. A window is (8, 200): 1 s at
    200 Hz, divided by 128 into [-1, 1), all of one label. Each file is cut into blocks of
    10 s, which are the groups: no window crosses a block, a change of label or a skipped
    line. A line is skipped when it is corrupt, when a value is no signed byte, or when its
    label is neither 0 nor the file's own gesture.

    Rest is learnt from its own file. The five-second pauses inside the other files are left
    out: they would be more than half of all windows, and their labels follow the prompt, not
    the arm that is still moving.

    Each gesture has a file of its own, recorded one after the other with the same protocol.
    Rows are therefore ordered by block first and gesture second: the earlier part of a
    domain is the earlier part of every gesture's minute.
    Raises DatasetFormatError where there is no session, or a session misses one of 0-7.txt.
    """
    for participant, files in _first_sessions(originals).items():
        parts: list[tuple[int, int, int, FloatArray]] = []
        for gesture, name in files.items():
            rows = _read_file(originals, name, gesture, tally)
            parts += [
                (block, gesture, label, cut)
                for block, label, cut in _cut_blocks(rows)
                if label == gesture and len(cut)
            ]
        # A stable sort keeps the runs of a block in the order of time.
        parts.sort(key=lambda part: part[:2])
        blocks = {key: group for group, key in enumerate(sorted({part[:2] for part in parts}))}
        yield tally.domain(
            f"p{participant:05d}",
            DESCRIPTION.task.sample_shape,
            [(x, label, blocks[block, gesture]) for block, gesture, label, x in parts],
        )


def _first_sessions(originals: Originals) -> dict[int, dict[int, str]]:
    """Each participant's files {gesture: name} of the first session, ordered by participant."""
    sessions: dict[int, dict[tuple[int, str], dict[int, str]]] = {}
    pattern = (
        r"_readings_(?P<hand>left|right)_hand/(?P<who>\d+)-(?P<session>\d+)/(?P<label>\d)\.txt"
    )
    for name, match in originals.matching(pattern):
        side = "0right" if match["hand"] == "right" else "1left"
        key = (int(match["session"]), side)
        of_participant = sessions.setdefault(int(match["who"]), {})
        of_participant.setdefault(key, {})[int(match["label"])] = name
    if not sessions:
        raise DatasetFormatError(
            f"{originals.label}: got no _readings_<hand>_hand/<id>-<session>/<gesture>.txt, "
            "wanted at least one"
        )
    first = {}
    for participant, of_participant in sorted(sessions.items()):
        session = min(of_participant)
        files = of_participant[session]
        for gesture in range(DESCRIPTION.task.num_classes):
            if gesture not in files:
                raise DatasetFormatError(
                    f"{originals.label}: session {participant}-{session[0]}: got no {gesture}.txt, "
                    "wanted 0.txt to 7.txt"
                )
        first[participant] = {g: files[g] for g in range(DESCRIPTION.task.num_classes)}
    return first


def _read_file(originals: Originals, name: str, gesture: int, tally: Tally) -> RowArray:
    """A file's lines (L, 9), NaN where a line is skipped."""
    rows_L9 = parse_rows(originals.read(name), 9, ",")
    in_range_L = ((rows_L9[:, :8] >= -128) & (rows_L9[:, :8] <= 127)).all(axis=1)
    labelled_L = np.isin(rows_L9[:, 8], (0, gesture))
    rows_L9[~(in_range_L & labelled_L)] = np.nan
    valid_L = intact_rows(rows_L9)
    tally.add_skipped(name, int((~valid_L).sum()))
    tally.add_recording(rows=int(valid_L.sum()))
    return rows_L9


def _cut_blocks(rows_L9: RowArray) -> Iterator[tuple[int, int, FloatArray]]:
    """(block, label, windows) of every stretch of one label inside one block."""
    valid_L = intact_rows(rows_L9)
    block_L = np.arange(len(rows_L9)) // BLOCK_LINES
    label_L = np.where(valid_L, rows_L9[:, 8], 0).astype(np.int64)
    for start, stop in runs(block_L * DESCRIPTION.task.num_classes + label_L, valid_L):
        cut = cut_windows(rows_L9[start:stop, :8] / FULL_SCALE, WINDOW, STEP)
        yield int(block_L[start]), int(label_L[start]), cut
