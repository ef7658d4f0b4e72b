"""Files that are written whole, here and on a file system that only fsspec reaches."""

import os
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest

from graft.core.files import (
    AnyPath,
    LineFile,
    open_path,
    place_file,
    read_lines,
    remove_tree,
    replace_file,
    working_file,
)
from graft.core.tables import read_table, write_table
from graft.errors import RunError


@pytest.fixture(params=["here", "elsewhere"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> AnyPath:
    if request.param == "here":
        return open_path(str(tmp_path / "run"))
    return open_path(f"memory://{uuid4().hex}/run")


def test_a_name_without_a_scheme_is_a_path_of_this_machine(tmp_path: Path) -> None:
    assert open_path(str(tmp_path)) == tmp_path
    assert open_path("runs/first").is_absolute()


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(folder: AnyPath) -> None:
    path = folder / "deep" / "file"
    assert not path.exists()
    for content in (b"first", b"", b"second"):
        replace_file(path, content)
        assert path.read_bytes() == content
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_finished_working_file_is_moved_to_its_place_and_another_goes(
    folder: AnyPath, tmp_path: Path
) -> None:
    replace_file(folder / "file", b"old")
    with working_file(tmp_path, "work-") as (path, file):
        assert path.stat().st_mode & 0o777 == 0o600
        file.write(b"new")
        file.flush()
        place_file(path, folder / "file")
        assert not path.exists()
    with working_file(tmp_path, "work-") as (abandoned, _):
        pass
    assert not abandoned.exists()
    assert (folder / "file").read_bytes() == b"new"
    assert [each.name for each in folder.iterdir()] == ["file"]


def test_a_tree_is_removed_and_its_neighbours_are_not(folder: AnyPath) -> None:
    for name in ("gone/a", "gone/deep/b", "kept"):
        replace_file(folder / name, b"x")
    remove_tree(folder / "gone")
    remove_tree(folder / "never-there")
    assert not (folder / "gone").exists()
    assert (folder / "kept").read_bytes() == b"x"


def test_a_table_comes_back(folder: AnyPath) -> None:
    table = pa.table({"name": ["a", "b"], "size": [1, 2]})
    write_table(table, folder / "table.parquet")
    assert read_table(folder / "table.parquet").equals(table)
    with pytest.raises(FileNotFoundError):
        read_table(folder / "other.parquet")


@pytest.mark.parametrize("torn", [b"", b"{", b"x" * 65_536, b"x" * 200_000])
@pytest.mark.parametrize("whole", [b"", b"{}\n", b"{}\n" * 50_000])
def test_opening_cuts_off_a_torn_line_of_any_length(
    tmp_path: Path, whole: bytes, torn: bytes
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(whole + torn)
    file = LineFile(path)
    file.append({})
    file.close()
    assert path.read_bytes() == whole + b"{}\n"


@pytest.mark.parametrize("garbage", [b"\0" * 512 + b"\n", b'{"a":\n', b"1\n\n{\n"])
def test_opening_cuts_off_lines_at_the_end_that_are_no_json(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a":1}\n' + garbage)
    file = LineFile(path)
    file.append({"a": 2})
    file.close()
    assert read_lines(path, lambda row: row["a"]) == [1, 2]


def test_a_short_write_is_cut_off_and_the_next_line_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, path = os.write, tmp_path / "lines.jsonl"
    file = LineFile(path)
    file.append({"a": 1})
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda handle, line: write(handle, line[:4]))  # a full disk
        with pytest.raises(RunError, match=r"wrote 4 of 8 bytes"):
            file.append({"a": 2})
    file.append({"a": 3})
    file.close()
    assert read_lines(path, lambda row: row["a"]) == [1, 3]


def test_a_log_beyond_its_size_is_rotated_once_and_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    file = LineFile(path, max_bytes=20)  # two lines of 8 bytes
    for a in range(5):
        file.append({"a": a})
    file.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["lines.jsonl", "lines.jsonl.1"]
    assert read_lines(path, lambda row: row["a"]) == [2, 3, 4]
    assert path.stat().st_size <= 20


def test_a_durable_write_waits_for_the_file_its_folder_and_every_new_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, synced = os.fsync, []

    def record(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        sync(handle)

    monkeypatch.setattr(os, "fsync", record)
    replace_file(tmp_path / "new" / "deep" / "file", b"x")
    assert synced[:2] == [tmp_path, tmp_path / "new"]
    assert synced[2].name.startswith(".partial-")
    assert synced[3:] == [tmp_path / "new" / "deep"]
    synced.clear()
    with working_file(tmp_path, "work-") as (path, _):
        place_file(path, tmp_path / "new" / "file")
    assert synced == [path, tmp_path / "new"]
    synced.clear()
    replace_file(tmp_path / "quick", b"x", durable=False)
    assert synced == []
