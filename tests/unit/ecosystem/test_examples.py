"""The example of every command's ``--help`` runs, made small by options put behind it."""

import functools
import http.server
import shlex
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import datasets
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import graft
from graft.cli import app
from graft.data import ImuWorld, write_dataset, write_domain
from graft.data.fetch import Download
from graft.data.imu_world import CHANNELS, RATE_HZ

SMALL_RUN = (
    "--domains 8 --rounds 2 --engine block --workers 0 --out runs/again --set training.max_steps=2 "
    "--set world.windows_per_domain=40 --set comparisons=[]"
)
# What is put behind an example to make it small; nothing where it is small as it is.
SMALLER = {
    "simulate": SMALL_RUN,
    "bench accuracy": "--seeds 1 --newcomers 1 --methods label-only --main label-only --workers 0 "
    "--set world.domains=3 --set world.windows_per_domain=40 --set training.max_steps=2 "
    "--set selection.num_sources=1 --set policy.min_class_count=1",
    "deploy calibrate": "--repeats 1 --steps 2 --architectures mlp,cnn-small",
}
# What must be there, or must not be, for one command alone.
READY: dict[str, Callable[[Path], object]] = {
    "bench accuracy": lambda place: write_people(place / "hapt"),
    "data from-csv": lambda place: shutil.rmtree(place / "my-folder"),
}
# Commands whose example needs another's before it.
FIRST = {"deploy enrol": "deploy init"}
# These talk to each other for as long as people let them: system tests run them together.
TOGETHER = {
    "deploy server", "deploy depot", "deploy device", "deploy expand", "deploy status",
    "deploy health", "deploy traffic",
}  # fmt: skip


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


ROOT = typer.main.get_command(app)
assert isinstance(ROOT, click.Group)
COMMANDS = dict(commands(ROOT))


def examples(name: str) -> list[list[str]]:
    """The arguments of each ``graft ...`` of a command's example."""
    text = COMMANDS[name].epilog or ""
    assert text.startswith("Example: graft "), f"{name}: got no example"
    return [shlex.split(each)[1:] for each in text.removeprefix("Example: ").split("; ")]


@pytest.fixture
def place(tmp_path: Path, small_run: graft.Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all that the examples name, and the archive that one of them downloads."""
    write_people(tmp_path / "my-folder")
    shutil.copytree(str(small_run.folder), tmp_path / "runs" / "first")
    write_recordings(tmp_path / "recordings")
    write_digits(tmp_path / "digits.parquet")
    write_hapt(tmp_path / "downloads" / "hapt.zip")
    monkeypatch.setattr("graft.data.prepare.check_counts", lambda *_: None)  # it is not complete
    serve = functools.partial(Quiet, directory=str(tmp_path / "downloads"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    url = f"http://127.0.0.1:{server.server_port}/hapt.zip"
    download = Download(name="hapt", url=url, file_name="fetched.zip", sha256=None)
    monkeypatch.setattr("graft.data.fetch.find_download", lambda name: download)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_example_of_every_command_runs(name: str, place: Path) -> None:
    READY.get(name, lambda place: None)(place)
    for wanted in (FIRST.get(name), name):
        for arguments in examples(wanted) if wanted else ():
            if name in TOGETHER:
                parse(arguments)
                continue
            # A second command of an example is another's.
            own = name if arguments[: len(name.split())] == name.split() else arguments[0]
            extra = shlex.split(SMALLER.get(own, "")) if wanted == name else []
            done = CliRunner().invoke(app, [*arguments, *extra], catch_exceptions=False)
            assert done.exit_code == 0, done.output


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_the_example_and_the_format_option(name: str) -> None:
    done = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert " ".join(examples(name)[0]) in " ".join(done.stdout.split())
    # What runs for as long as people let it has nothing to print at the end.
    if name not in TOGETHER:
        assert "--format" in done.stdout


def parse(arguments: list[str]) -> None:
    """Hold an example against the command's own options without running it."""
    command: click.Command = ROOT
    context = click.Context(command, info_name="graft")
    rest = list(arguments)
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
    command.make_context(command.name, rest, parent=context)


def write_people(folder: Path) -> None:
    """A domain folder of six synthetic people."""
    world = ImuWorld(6, 40, seed=1)
    write_dataset(folder, world.task, channels=CHANNELS, rate_hz=RATE_HZ, licence="synthetic")
    for domain_id in world.domain_ids:
        write_domain(folder, world.load(domain_id))


def write_recordings(folder: Path) -> None:
    """Two people, two activities, 30 s of each at 50 Hz."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["person,activity,acc_x,acc_y,acc_z"]
    for who in ("ann", "bob"):
        for what in ("walk", "rest"):
            for x, y, z in rng.normal(size=(1500, 3)):
                lines.append(f"{who},{what},{x:.4f},{y:.4f},{z:.4f}")
    (folder / "all.csv").write_text("\n".join(lines) + "\n", "utf-8")


def write_digits(path: Path) -> None:
    rng = np.random.default_rng(0)
    table = {
        "image": [rng.random((1, 8, 8)).tolist() for _ in range(300)],
        "digit": [i % 5 for i in range(300)],
    }
    datasets.Dataset.from_dict(table).to_parquet(path)


def write_hapt(path: Path) -> None:
    """One user of two activities, three segments each."""
    path.parent.mkdir()
    segments = [f"1 1 {4 + i % 2} {300 * i + 1} {300 * i + 300}" for i in range(6)]
    rows = "\n".join(f"{line} 0.5 -0.5" for line in range(1800)) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        raw = "HAPT Data Set/RawData"
        archive.writestr(f"{raw}/labels.txt", "\n".join(segments) + "\n")
        for sensor in ("acc", "gyro"):
            archive.writestr(f"{raw}/{sensor}_exp01_user01.txt", rows)
