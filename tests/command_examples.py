"""The ``graft`` command's examples: every command, its options, and what the examples name."""

import functools
import http.server
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import click
import datasets
import numpy as np
import typer
from PIL import Image

from graft.cli.main import app
from graft.data import ImuWorld, write_dataset, write_domain
from graft.data.synthetic.imu import CHANNELS, RATE_HZ

# These talk to each other for as long as people let them: system tests run them together.
TOGETHER = {
    "deploy server", "deploy depot", "deploy device", "deploy expand", "deploy status",
    "deploy health", "deploy traffic", "deploy appeal", "deploy page",
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


@contextmanager
def served_archive(folder: Path) -> Iterator[str]:
    """The address of ``folder/hapt.zip`` on a server of this process."""
    serve = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hapt.zip"
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


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


def write_pictures(folder: Path) -> None:
    """Five places, two kinds of things, four pictures of each."""
    rng = np.random.default_rng(0)
    for place, what, number in product(
        ("den", "hall", "shop", "yard", "zoo"), ("bike", "mug"), range(4)
    ):
        path = folder / place / what / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(path)


def write_reviews(path: Path) -> None:
    lines = ["shop,stars,review"]
    lines += [f"shop {n % 5},{n % 3},Number {n} is fine." for n in range(90)]
    path.write_text("\n".join(lines) + "\n", "utf-8")


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
