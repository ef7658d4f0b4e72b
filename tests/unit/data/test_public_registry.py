"""Preparing is all or nothing, and never writes over what is there unasked."""

from pathlib import Path

import pytest

from graft.data.folder import FolderWorld
from graft.data.public.registry import READERS, find_dataset, prepare_dataset
from graft.errors import ConfigError, DataError, DatasetFormatError


def write_spsw(folder: Path, num_subjects: int = 2) -> Path:
    header = "x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label"
    for subject in range(1, num_subjects + 1):
        for device in ("sp", "sw"):
            rows = [
                f"1,2,3,4,5,6,{line * 10},{'SEATED' if line < 200 else 'WALKING'}"
                for line in range(400)
            ]
            path = folder / "DATA" / f"s{subject:02d}" / f"s{subject:02d}_01_{device}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join([header, *rows]))
    return folder


def test_the_folder_reads_back_as_a_world_and_devices_of_one_person_stay_together(
    tmp_path: Path,
) -> None:
    source = write_spsw(tmp_path / "originals")
    calls: list[tuple[str, int, int]] = []
    report = prepare_dataset(
        "spsw", source, tmp_path / "out", lambda *call: calls.append(call), complete=False
    )
    world = FolderWorld(tmp_path / "out")
    assert list(world.domain_ids) == ["s01@sp", "s01@sw", "s02@sp", "s02@sw"]
    assert world.person("s01@sp") == world.person("s01@sw") == "s01"
    # 400 lines hold (400 - 128) // 64 + 1 = 5 windows.
    assert world.load("s02@sw").x.shape == (5, 6, 128)
    assert (report.load.recordings, report.load.rows, report.load.windows) == (4, 1600, 20)
    assert calls == [(domain, i + 1, 46) for i, domain in enumerate(world.domain_ids)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["originals", "out"]


def test_an_incomplete_set_leaves_nothing_behind(tmp_path: Path) -> None:
    source = write_spsw(tmp_path / "originals")
    with pytest.raises(DatasetFormatError, match="got 4 domains, wanted 46"):
        prepare_dataset("spsw", source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["originals"]


def test_a_place_that_holds_something_is_only_replaced_when_asked(tmp_path: Path) -> None:
    source = write_spsw(tmp_path / "originals", num_subjects=1)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="already holds something"):
        prepare_dataset("spsw", source, out, complete=False)
    assert (out / "mine.txt").read_text() == "keep"
    # A failing replacement must not cost the old folder either.
    with pytest.raises(DatasetFormatError):
        prepare_dataset("spsw", source, out, overwrite=True)
    assert (out / "mine.txt").read_text() == "keep"
    prepare_dataset("spsw", source, out, overwrite=True, complete=False)
    assert sorted(path.name for path in out.iterdir()) == ["dataset.toml", "domains"]


def test_preparing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_spsw(tmp_path / "originals", num_subjects=1)
    for name in ("a", "b"):
        prepare_dataset("spsw", source, tmp_path / name, complete=False)
    for path in (tmp_path / "a").rglob("*.*"):
        if path.is_file():
            twin = tmp_path / "b" / path.relative_to(tmp_path / "a")
            assert path.read_bytes() == twin.read_bytes()


def test_an_unknown_set_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hapt, myo, spsw, pendigits, fsdd"):
        prepare_dataset("mnist", tmp_path, tmp_path / "out")


def test_every_description_is_consistent() -> None:
    for name in READERS:
        description = find_dataset(name)
        named = description.channels
        assert len(named) == description.task.sample_shape[0] if named else description.task.inputs
        assert description.licence
        assert description.citation
        assert description.task.name == description.name
