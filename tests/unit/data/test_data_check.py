"""What ``graft data check`` says: every fault has a reason and a way out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graft.core.streams import Streams
from graft.core.tasks import InputSpec, Task
from graft.data.check import explain_folder, overlapping_rows
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData
from graft.data.folder import write_domain

TASK = Task(name="gait", modality="imu", sample_shape=(2, 8), classes=("walk", "run", "rest"))


def record(domain_id: str, *, hop: int = 8, blocks: bool = True) -> DomainData:
    """Two recordings of each of two classes, cut every ``hop`` samples."""
    rng = np.random.default_rng(7)
    x, y, group = [], [], []
    for segment in range(8):
        signal = rng.normal(size=(2, 8 + 4 * hop)).astype(np.float32)
        signal[0] = np.roll(signal[0], ord(domain_id[0]))  # people's recordings are unlike
        for start in range(0, 4 * hop + 1, hop):
            x.append(signal[:, start : start + 8])
            y.append(segment % 2)
            group.append(segment if blocks else len(group))
    return DomainData(domain_id=domain_id, x=np.stack(x), y_N=np.array(y), group_N=np.array(group))


def write(folder: Path, *domains: DomainData) -> Path:
    write_dataset(folder, TASK, channels=("x", "y"), rate_hz=50.0, licence="CC0")
    for data in domains:
        write_domain(folder, data)
    return folder


def test_a_sound_folder_has_nothing_to_explain(tmp_path: Path) -> None:
    people = [record(name, hop=4) for name in ("ann", "bob", "cid", "dee", "eve")]
    assert explain_folder(write(tmp_path, *people)) == ()


@pytest.mark.parametrize("hop", [2, 4, 6])
def test_windows_that_overlap_across_groups_are_a_problem(tmp_path: Path, hop: int) -> None:
    people = [record(name) for name in ("bob", "cid", "dee", "eve")]
    (found,) = explain_folder(write(tmp_path, record("ann", hop=hop, blocks=False), *people))
    assert found.is_problem
    assert found.domain_id == "ann"
    assert f"Rows 0 and 1 share {8 - hop} of 8 samples" in found.what
    assert "test what the other trained" in found.advice


def test_silence_and_separate_windows_do_not_count_as_overlap() -> None:
    assert overlapping_rows(record("ann", hop=8, blocks=False)) is None
    still = replace(record("ann", blocks=False), x=np.zeros((40, 2, 8), np.float32))
    assert overlapping_rows(still) is None


def test_a_copy_in_another_group_is_an_overlap_of_all_samples() -> None:
    data = record("ann", blocks=False)
    data.x[4] = data.x[3]
    assert overlapping_rows(data) == (4, 8)


def test_a_recording_that_is_there_twice_is_a_remark(tmp_path: Path) -> None:
    people = [record(name) for name in ("ann", "bob", "cid", "dee")]
    own, again = people[0], np.tile(np.arange(40), 2)
    people[0] = replace(own, x=own.x[again], y_N=own.y_N[again], group_N=np.arange(80) // 5)
    people.append(replace(people[1], domain_id="eve"))
    found = explain_folder(write(tmp_path, *people))
    assert [(each.domain_id, each.what) for each in found] == [
        ("ann", "40 of 80 samples also stand in another group."),
        ("eve", "40 of 40 samples also stand in bob."),
    ]


def test_recordings_that_cannot_be_split_are_told_how_to_be(tmp_path: Path) -> None:
    data = record("ann")
    whole = replace(data, group_N=data.y_N)
    found = explain_folder(write(tmp_path, whole))
    assert (found[0].domain_id, found[0].error) == ("ann", "DomainEmptyError")
    assert "at least two segments to each class" in found[0].advice


def test_problems_come_first_and_remarks_stop_nothing(tmp_path: Path) -> None:
    loud, dead = record("ann"), record("bob")
    loud = replace(loud, x=loud.x * 100)
    dead.x[:, 1] = 2.0
    bad = replace(record("zoe"), x=np.full((40, 2, 8), np.nan, np.float32))
    found = explain_folder(write(tmp_path, loud, dead, record("cid"), bad))
    assert [(f.domain_id, f.is_problem) for f in found] == [
        ("zoe", True), ("bob", False), ("ann", False), ("ann", False), ("", False),
    ]  # fmt: skip
    assert "1 never change" in found[1].what
    assert "100 times as much" in found[2].what
    assert found[0].advice.startswith("Drop the windows")


def test_a_folder_that_is_none_is_one_problem_with_the_layout_named(tmp_path: Path) -> None:
    (found,) = explain_folder(tmp_path / "nowhere")
    assert (found.domain_id, found.error) == ("", "DatasetFormatError")
    assert "from-csv" in found.advice


def test_streams_are_checked_each_and_text_has_no_channels(tmp_path: Path) -> None:
    inputs = (
        InputSpec(name="watch", kind="window", shape=(1, 16), modality="imu"),
        InputSpec(name="phone", kind="window", shape=(1, 16), modality="imu"),
        InputSpec(name="note", kind="tokens", shape=(8,), dtype="uint8", modality="text"),
    )
    task = Task(name="both", modality="mixed", inputs=inputs, classes=("a", "b"))
    rng = np.random.default_rng(0)
    recording_T = rng.normal(size=300).astype(np.float32)
    for index in range(5):
        watch = rng.normal(size=(24, 1, 16)).astype(np.float32)
        phone = np.stack([recording_T[None, 8 * row : 8 * row + 16] for row in range(24)])
        streams = {"watch": watch, "phone": phone, "note": np.full((24, 8), 65, np.uint8)}
        del streams["phone" if index else "watch"]
        data = DomainData(domain_id=f"d{index}", x=Streams(streams), y_N=np.arange(24) % 2,
                          group_N=np.arange(24), inputs=tuple(streams))  # fmt: skip
        write_domain(tmp_path, data, task=task)
    write_dataset(tmp_path, task, licence="mine")
    (finding,) = explain_folder(tmp_path)
    assert (finding.domain_id, finding.is_problem) == ("d0", True)
    assert finding.what.startswith("Rows 0 and 1 share 8 of 16 samples")
