"""One small finished run, made by the Python API within this process, and a folder around it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_examples import (
    served_archive,
    write_digits,
    write_hapt,
    write_people,
    write_pictures,
    write_recordings,
    write_reviews,
)

import graft
from graft.data.public.recordings import Download

SETTINGS = {"world.windows_per_domain": 60, "training.max_steps": 8}
# The same, as the command is told it.
ARGUMENTS = (
    "simulate", "--domains", "8", "--rounds", "2", "--seed", "3", "--engine", "block",
    "--workers", "0", "--set", "world.windows_per_domain=60", "--set", "training.max_steps=8",
    "--set", 'comparisons=["label-only"]',
)  # fmt: skip


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> graft.Run:
    """Of 8 domains round(0.4 * 8) = 3 are initial domains, 5 are target domains of two rounds."""
    place: Path = tmp_path_factory.mktemp("ecosystem") / "run"
    return graft.simulate(
        "imu", domains=8, rounds=2, seed=3, comparisons=["label-only"], settings=SETTINGS,
        engine="block", workers=0, out=place, track=[f"tensorboard={place.parent / 'events'}"],
    )  # fmt: skip


@pytest.fixture
def arguments() -> tuple[str, ...]:
    """What the command is told for the same run."""
    return ARGUMENTS


@pytest.fixture
def place(tmp_path: Path, small_run: graft.Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all that the examples name, and the archive that one of them downloads."""
    write_people(tmp_path / "my-folder")
    shutil.copytree(str(small_run.folder), tmp_path / "runs" / "first")
    write_recordings(tmp_path / "recordings")
    write_digits(tmp_path / "digits.parquet")
    write_pictures(tmp_path / "pictures")
    write_reviews(tmp_path / "reviews.csv")
    write_hapt(tmp_path / "downloads" / "hapt.zip")
    monkeypatch.setattr(
        "graft.data.public.registry.check_counts", lambda *_: None
    )  # it is not complete
    monkeypatch.chdir(tmp_path)
    with served_archive(tmp_path / "downloads") as url:
        download = Download(url=url, file_name="fetched.zip", sha256=None)
        monkeypatch.setattr("graft.data.public.download.find_download", lambda name: download)
        yield tmp_path
