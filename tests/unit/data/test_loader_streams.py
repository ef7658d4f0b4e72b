"""UTD-MHAD and SP-SW's pairs in small: two streams of one sample, and what lacks one."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from graft.data.domain import DomainData
from graft.data.public.archives import open_originals
from graft.data.public.recordings import Tally
from graft.data.public.spsw import COLUMNS, read_spsw_pairs
from graft.data.public.utd_mhad import read_utd_mhad
from graft.errors import DatasetFormatError


def write_trial(folder: Path, action: int, subject: int, trial: int, length: int = 100) -> None:
    stem = f"a{action}_s{subject}_t{trial}"
    ramp_T6 = np.linspace(0, 1, length)[:, None] * [1, 2, 3, 180 / np.pi, 0, 0]
    skeleton_J3T = np.full((20, 3, length // 2), float(subject))
    skeleton_J3T[5, 1] += np.linspace(0, 1, length // 2)
    for part, name, array in (
        ("Inertial", "d_iner", ramp_T6),
        ("Skeleton", "d_skel", skeleton_J3T),
    ):
        path = folder / part / f"{stem}_{part.lower()}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, {name: array})


def load_utd(folder: Path) -> tuple[list[DomainData], Tally]:
    tally = Tally()
    with open_originals(folder) as originals:
        return list(read_utd_mhad(originals, tally)), tally


def test_a_trial_is_one_sample_of_both_sensors_over_its_whole_length(tmp_path: Path) -> None:
    for trial, length in ((1, 90), (2, 300)):
        for action in (2, 1):
            write_trial(tmp_path, action, 3, trial, length)
    (data,), tally = load_utd(tmp_path)
    assert data.domain_id == "s3"
    assert data.x["inertial"].shape == (4, 6, 128)
    assert data.x["skeleton"].shape == (4, 60, 64)
    # Trials first, then actions: every action occurs early and late.
    assert data.y_N.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(data.x["inertial"][:, 3, -1], 1, rtol=1e-5)  # in rad/s
    # From the hip's centre in the first frame, where all joints but one rest.
    np.testing.assert_allclose(data.x["skeleton"][0, 16, [0, -1]], [0, 1])
    assert not data.x["skeleton"][:, 17].any()
    assert tally.recordings == 8


def test_a_subject_without_a_sensor_lacks_its_stream_and_a_lone_trial_is_counted(
    tmp_path: Path,
) -> None:
    for subject in (1, 2):
        for action in (1, 2):
            write_trial(tmp_path, action, subject, 1)
    for path in (tmp_path / "Skeleton").glob("*_s1_*"):
        path.unlink()
    (tmp_path / "Inertial" / "a2_s2_t1_inertial.mat").unlink()
    (first, second), tally = load_utd(tmp_path)
    assert first.x.names == ("inertial",)
    assert (second.x.names, second.y_N.tolist()) == (("inertial", "skeleton"), [0])
    assert list(tally.skipped_lines.values()) == [1]


def test_a_damaged_trial_and_an_unknown_action_are_named(tmp_path: Path) -> None:
    write_trial(tmp_path / "a", 28, 1, 1)
    with pytest.raises(DatasetFormatError, match="got action 28, wanted 1 to 27"):
        load_utd(tmp_path / "a")
    write_trial(tmp_path / "b", 1, 1, 1)
    (tmp_path / "b" / "Inertial" / "a1_s1_t1_inertial.mat").write_bytes(b"no mat")
    with pytest.raises(DatasetFormatError, match=r"a1_s1_t1_inertial\.mat: got .*wanted d_iner"):
        load_utd(tmp_path / "b")


def write_recording(folder: Path, name: str, start_ms: int, period_ms: float, num: int) -> None:
    rows = [
        f"0,0,0,{start_ms + line * period_ms},0,0,{start_ms + round(line * period_ms)},WALKING"
        for line in range(num)
    ]
    path = folder / name[:3] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")


def load_pairs(folder: Path) -> tuple[list[DomainData], Tally]:
    tally = Tally()
    with open_originals(folder) as originals:
        return list(read_spsw_pairs(originals, tally)), tally


def test_both_devices_windows_lie_at_the_same_time(tmp_path: Path) -> None:
    # The gyroscope's x tells the time: 100 Hz from 1000 ms, and 50 Hz from 1095 ms.
    write_recording(tmp_path, "s01_01_sp.csv", 1000, 10, 300)
    write_recording(tmp_path, "s01_01_sw.csv", 1095, 20, 120)
    (data,), tally = load_pairs(tmp_path)
    # From 1095 to 3475 ms are 239 samples, hence 2 windows.
    assert data.x["phone"].shape == data.x["watch"].shape == (2, 6, 128)
    np.testing.assert_allclose(data.x["phone"][:, 3], data.x["watch"][:, 3], rtol=1e-6)
    assert data.x["phone"][:, 3, 0].tolist() == [1095, 1735]
    assert (data.domain_id, data.group_N.tolist()) == ("s01", [0, 0])
    assert (tally.recordings, tally.rows) == (2, 420)


def test_a_subject_of_one_device_lacks_a_stream_and_a_lone_execution_is_counted(
    tmp_path: Path,
) -> None:
    for name in ("s01_01_sp.csv", "s01_02_sp.csv", "s02_01_sp.csv", "s02_01_sw.csv",
                 "s02_02_sw.csv"):  # fmt: skip
        write_recording(tmp_path, name, 0, 10, 128)
    (first, second), tally = load_pairs(tmp_path)
    assert (first.x.names, first.group_N.tolist()) == (("phone",), [0, 1])
    assert (second.x.names, second.group_N.tolist()) == (("phone", "watch"), [0])
    assert tally.skipped_lines == {"s02/s02_02_sw.csv": 1}
