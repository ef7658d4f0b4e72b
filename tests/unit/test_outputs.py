"""Outputs that a person names: nothing that graft did not write is ever removed."""

import logging
import os
from pathlib import Path

import pytest

from graft.core.outputs import check_output_file, fresh_folder, new_folder, write_output
from graft.errors import DataError


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"only copy of {name}\n", "utf-8")
    return folder


def test_an_output_that_is_holds_or_lies_in_the_source_is_refused(tmp_path: Path) -> None:
    source = fill(tmp_path / "data" / "raw", "p1.csv")
    link = tmp_path / "link"
    link.symlink_to(source)
    cases = (("is", source), ("holds", source.parent), ("lies in", source / "out"))
    for how, out in (
        *cases,
        ("is", link),
        ("lies in", link / "out"),
        ("lies in", source / "p1.csv" / "x"),
    ):
        with (
            pytest.raises(DataError, match=f"{how} the source"),
            new_folder(out, sources=[source], overwrite=True),
        ):
            pytest.fail("the block must not begin")
    assert (source / "p1.csv").read_text("utf-8") == "only copy of p1.csv\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "link", "p1.csv", "raw"]


def test_folders_beside_the_output_keep_their_files(tmp_path: Path) -> None:
    fill(tmp_path / "out.previous", "diary.txt")
    fill(tmp_path / "out.partial", "diary.txt")
    for _ in range(2):
        with new_folder(tmp_path / "out", overwrite=True) as folder:
            fill(folder, "dataset.toml", "domains/a.npz")
    assert (tmp_path / "out.previous" / "diary.txt").exists()
    assert (tmp_path / "out.partial" / "diary.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out",
        "out.partial",
        "out.previous",
    ]


def test_what_graft_did_not_write_is_moved_aside_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "out", "dataset.toml", "domains/a.npz", "domains/notes/thesis.tex")
    with caplog.at_level(logging.WARNING), new_folder(tmp_path / "out", overwrite=True) as folder:
        fill(folder, "dataset.toml", "domains/b.npz")
    (kept,) = tmp_path.glob("out.before-*")
    assert (kept / "domains" / "notes" / "thesis.tex").exists()
    assert str(kept) in caplog.text
    assert [path.name for path in (tmp_path / "out" / "domains").iterdir()] == ["b.npz"]


def test_a_file_in_the_place_of_the_output_is_moved_aside(tmp_path: Path) -> None:
    fill(tmp_path, "out")
    with new_folder(tmp_path / "out", overwrite=True) as folder:
        fill(folder, "dataset.toml")
    (kept,) = tmp_path.glob("out.before-*/out")
    assert kept.read_text("utf-8") == "only copy of out\n"


def test_a_failed_block_leaves_all_as_it_was(tmp_path: Path) -> None:
    fill(tmp_path / "out", "dataset.toml")
    with pytest.raises(ValueError, match="no"), new_folder(tmp_path / "out", overwrite=True):
        raise ValueError("no")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "dataset.toml"]


def test_the_working_folder_and_the_home_folder_are_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for out in (Path("."), Path(".."), tmp_path, tmp_path / "me"):
        with pytest.raises(DataError, match="is or holds"), new_folder(out, overwrite=True):
            pytest.fail("the block must not begin")
    os.chdir("/")


def test_a_file_of_another_kind_is_not_written_over(tmp_path: Path) -> None:
    fill(tmp_path, "page.html")
    with pytest.raises(DataError, match="did not write"):
        write_output(tmp_path / "page.html", b"<p>graft</p>")
    for _ in range(2):
        write_output(tmp_path / "new.html", b"<p>graft</p>")
    with pytest.raises(DataError, match="lies in the source"):
        check_output_file(tmp_path / "run" / "report.html", [tmp_path / "run"])


def test_a_working_folder_is_emptied_only_where_an_earlier_call_made_it(tmp_path: Path) -> None:
    fill(tmp_path / "work", "thesis.tex")
    with pytest.raises(DataError, match="no earlier call made"):
        fresh_folder(tmp_path / "work")
    for _ in range(2):
        fill(fresh_folder(tmp_path / "own"), "rows")
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["rows"]


@pytest.mark.parametrize("error", [RuntimeError, FileNotFoundError])
def test_a_user_without_a_home_or_working_folder_has_outputs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[Exception]
) -> None:
    def nowhere() -> Path:
        raise error("no folder")

    for name in ("home", "cwd"):
        monkeypatch.setattr(Path, name, nowhere)
    with new_folder(tmp_path / "out") as folder:
        fill(folder, "a.txt")
    assert (tmp_path / "out" / "a.txt").is_file()
