"""Myo readings in small: blocks, hands, sessions and merged lines."""

from pathlib import Path

import numpy as np
import pytest

from graft.data.domain import DomainData
from graft.data.public.archives import open_originals
from graft.data.public.myo import read_myo
from graft.data.public.recordings import Tally
from graft.errors import DatasetFormatError


def reading(label: int, value: int = 64) -> str:
    return ",".join([str(value)] * 8 + [str(label)])


def write_session(folder: Path, session: str, hand: str = "right", value: int = 64) -> Path:
    path = folder / f"_readings_{hand}_hand" / session
    path.mkdir(parents=True)
    for gesture in range(8):
        (path / f"{gesture}.txt").write_text("\n".join([reading(gesture, value)] * 300))
    return path


def load(folder: Path) -> tuple[list[DomainData], Tally]:
    tally = Tally()
    with open_originals(folder) as originals:
        return list(read_myo(originals, tally)), tally


def test_a_participant_is_a_domain_and_only_the_first_session_counts(tmp_path: Path) -> None:
    write_session(tmp_path, "12345-2", value=100)
    write_session(tmp_path, "12345-1")
    write_session(tmp_path, "666-0", hand="left")
    domains, tally = load(tmp_path)
    assert [data.domain_id for data in domains] == ["p00666", "p12345"]
    # 300 lines hold (300 - 200) / 100 + 1 = 2 windows for each of 8 gestures; 64 / 128 = 0.5.
    assert domains[1].x.shape == (16, 8, 200)
    assert (domains[1].x == 0.5).all()
    assert (tally.recordings, tally.rows) == (16, 16 * 300)


def test_no_window_crosses_a_block_a_label_or_a_skipped_line(tmp_path: Path) -> None:
    path = write_session(tmp_path, "1-1")
    lines = [reading(0)] * 1000 + [reading(3)] * 1300
    lines[500] = "1,2,3,4,5,6,7,8,01,2,3,4,5,6,7,8,0"
    lines[1700] = reading(3, value=128)
    lines[1900] = reading(2)
    (path / "3.txt").write_text("\r\n".join(lines))
    (data,), tally = load(tmp_path)
    # Skips cut the gesture into runs of 700, 199 and 99 lines
    # up to the end of the block at 2,000, then 300.
    windows = {run: (run - 200) // 100 + 1 for run in (700, 199, 99, 300)}
    flexed = windows[700] + max(windows[199], 0) + max(windows[99], 0) + windows[300]
    from_file = np.isin(data.group_N, np.unique(data.group_N[data.y_N == 3]))
    # The pause before the gesture is no window of rest: rest has a file of its own.
    assert (data.y_N[from_file] == 0).sum() == 0
    assert (data.y_N == 3).sum() == flexed
    assert tally.skipped_lines == {"_readings_right_hand/1-1/3.txt": 3}


def test_rows_run_block_by_block_so_that_the_later_part_holds_every_gesture(tmp_path: Path) -> None:
    path = write_session(tmp_path, "1-1")
    for gesture in range(8):
        (path / f"{gesture}.txt").write_text("\n".join([reading(gesture)] * 4000))
    (data,), _ = load(tmp_path)
    # 2 blocks of 2,000 lines with 19 windows each, for 8 gestures.
    first, second = data.y_N[: 8 * 19], data.y_N[8 * 19 :]
    assert first.tolist() == second.tolist() == np.repeat(np.arange(8), 19).tolist()
    assert data.group_N.tolist() == np.repeat(np.arange(16), 19).tolist()


def test_a_missing_gesture_is_named(tmp_path: Path) -> None:
    (write_session(tmp_path, "1-1") / "5.txt").unlink()
    with pytest.raises(DatasetFormatError, match=r"5\.txt"):
        load(tmp_path)
    with pytest.raises(DatasetFormatError, match="_readings"):
        load(tmp_path / "_readings_right_hand" / "1-1")
