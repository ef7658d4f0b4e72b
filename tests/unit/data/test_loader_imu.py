"""HAPT and SP-SW in small: windows stay inside segments and recordings."""

from pathlib import Path

import numpy as np
import pytest

from graft.data.domain import DomainData
from graft.data.public.archives import open_originals
from graft.data.public.hapt import read_hapt
from graft.data.public.recordings import Tally, check_counts, parse_rows
from graft.data.public.spsw import COLUMNS, DESCRIPTION, STANDARD_GRAVITY, read_spsw
from graft.errors import DatasetFormatError


def write_hapt(folder: Path, labels: str, num_lines: int = 500) -> None:
    raw = folder / "HAPT Data Set" / "RawData"
    raw.mkdir(parents=True)
    (raw / "labels.txt").write_text(labels)
    rows = [f"{line} 0.5 -0.5" for line in range(num_lines)]
    (raw / "acc_exp01_user01.txt").write_text("\n".join(rows) + "\n")
    (raw / "gyro_exp01_user01.txt").write_text("\n".join(rows) + "\n")


def load_hapt(folder: Path) -> tuple[list[DomainData], Tally]:
    tally = Tally()
    with open_originals(folder) as originals:
        return list(read_hapt(originals, tally)), tally


def test_hapt_windows_are_cut_at_half_overlap_inside_each_segment(tmp_path: Path) -> None:
    # Lines 1..256 hold (256 - 128) / 64 + 1 = 3 windows, 301..427 (127 lines) none, and
    # 373..500 (128 lines) exactly one.
    write_hapt(tmp_path, "1 1 5 1 256\n1 1 7 301 427\n1 1 4 373 500\n")
    (data,), _ = load_hapt(tmp_path)
    assert data.domain_id == "user01"
    assert data.x.shape == (4, 6, 128)
    assert data.x.dtype == np.float32
    assert data.x[:, 0, 0].tolist() == [0, 64, 128, 372]
    assert data.y_N.tolist() == [4, 4, 4, 3]
    assert len(set(data.group_N[:3])) == 1
    assert data.group_N[3] != data.group_N[0]


def test_hapt_never_spans_a_corrupt_line_and_counts_it(tmp_path: Path) -> None:
    write_hapt(tmp_path, "1 1 1 1 300\n")
    gyro = tmp_path / "HAPT Data Set" / "RawData" / "gyro_exp01_user01.txt"
    lines = gyro.read_text().splitlines()
    lines[130] = "1.0 2.0 3.04.0 5.0"
    gyro.write_text("\n".join(lines))
    (data,), tally = load_hapt(tmp_path)
    # Lines 0..129 hold one window, 131..299 (169 lines) one more.
    assert data.x[:, 0, 0].tolist() == [0, 131]
    assert tally.skipped_lines == {"gyro_exp01_user01.txt": 1}


def test_hapt_names_a_missing_recording_and_a_label_outside_it(tmp_path: Path) -> None:
    write_hapt(tmp_path / "a", "1 1 5 1 256\n2 1 5 1 256\n")
    with pytest.raises(DatasetFormatError, match=r"acc_exp02_user01\.txt"):
        load_hapt(tmp_path / "a")
    write_hapt(tmp_path / "b", "1 1 5 1 501\n")
    with pytest.raises(DatasetFormatError, match="1 to 501"):
        load_hapt(tmp_path / "b")


def test_an_incomplete_set_is_told_by_its_counts() -> None:
    with pytest.raises(DatasetFormatError, match="got 0 domains, wanted 46"):
        check_counts(DESCRIPTION, Tally())


def test_lines_that_are_no_numbers_become_nan_in_their_place() -> None:
    rows = parse_rows(b"1,2\r\n\r\n3,x\n4,5,6\n7,inf\n8, 9\n\n", 2, ",")
    assert np.isnan(rows[:, 0]).tolist() == [False, True, True, True, True, False]
    assert rows[[0, 5]].tolist() == [[1, 2], [8, 9]]
    assert parse_rows(b"", 2, ",").shape == (0, 2)


def write_execution(folder: Path, name: str, rows: list[str], columns: str) -> None:
    path = folder / "DATA" / name[:3] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([columns, *rows]) + "\n")


def spsw_row(line: int, label: str, period_ms: float = 10.0) -> str:
    return f"{line * STANDARD_GRAVITY},1,2,3,4,5,{1_000_000 + int(line * period_ms)},{label}"


def load_spsw(folder: Path) -> tuple[list[DomainData], Tally]:
    tally = Tally()
    with open_originals(folder) as originals:
        return list(read_spsw(originals, tally)), tally


def test_spsw_makes_one_domain_a_subject_and_device_with_one_group_an_execution(
    tmp_path: Path,
) -> None:
    header = ",".join(COLUMNS)
    seated = [spsw_row(line, "SEATED") for line in range(200)]
    for name in ("s01_01_sp.csv", "s01_10_sp.csv", "s01_02_sp.csv", "s01_01_sw.csv"):
        write_execution(tmp_path, name, seated, header)
    domains, tally = load_spsw(tmp_path)
    assert [data.domain_id for data in domains] == ["s01@sp", "s01@sw"]
    # 200 lines hold (200 - 128) // 64 + 1 = 2 windows.
    assert domains[0].group_N.tolist() == [0, 0, 1, 1, 2, 2]
    assert (tally.recordings, tally.rows, tally.windows) == (4, 800, 8)
    # One g more a line, at 10 ms a line: the ramp is kept, in g.
    np.testing.assert_allclose(domains[0].x[0, 0], np.arange(128), rtol=1e-5)
    np.testing.assert_allclose(domains[0].x[0, 1:, 0], [1 / 9.80665, 2 / 9.80665, 3, 4, 5])


def test_spsw_labels_a_window_by_majority(tmp_path: Path) -> None:
    # Of the window's 128 lines 65 are walking.
    rows = [spsw_row(line, "SEATED" if line < 63 else "WALKING") for line in range(128)]
    write_execution(tmp_path, "s01_01_sw.csv", rows, ",".join(COLUMNS))
    (data,), _ = load_spsw(tmp_path)
    assert data.y_N.tolist() == [DESCRIPTION.task.classes.index("walking")]


def test_spsw_brings_another_rate_to_100_hz(tmp_path: Path) -> None:
    # 101 lines 20 ms apart last 2 s: 201 lines at 100 Hz, half a line's ramp each.
    rows = [spsw_row(line, "TURNING", 20.0) for line in range(101)]
    write_execution(tmp_path, "s01_01_sw.csv", rows, ",".join(COLUMNS))
    (data,), _ = load_spsw(tmp_path)
    assert len(data.x) == 2
    np.testing.assert_allclose(data.x[0, 0], np.arange(128) / 2, rtol=1e-5, atol=1e-6)


def test_spsw_finds_columns_by_name_skips_corrupt_lines_and_refuses_other_headers(
    tmp_path: Path,
) -> None:
    rows = [f"{line * 10},RUNNING,3,4,5,0,0,0" for line in range(3)]
    rows += [f"{line * 10},SEATED,3,4,5,0,0,0" for line in range(3, 140)]
    header = "timestamp,label,x_gyro,y_gyro,z_gyro,x_acc,y_acc,z_acc"
    write_execution(tmp_path / "a", "s01_01_sp.csv", rows, header)
    (data,), tally = load_spsw(tmp_path / "a")
    assert data.x[0, :, 0].tolist() == [0, 0, 0, 3, 4, 5]
    assert list(tally.skipped_lines.values()) == [3]
    write_execution(tmp_path / "b", "s01_01_sp.csv", rows, header.replace("label", "activity"))
    with pytest.raises(DatasetFormatError, match="activity"):
        load_spsw(tmp_path / "b")
