"""The example of every command's ``--help`` runs, made small by options put behind it."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_examples import COMMANDS, TOGETHER, parse, write_people
from typer.testing import CliRunner

from graft.cli.main import app

SMALL_RUN = (
    "--domains 8 --rounds 2 --engine block --workers 0 --out runs/again --set training.max_steps=2 "
    "--set world.windows_per_domain=40 --set comparisons=[]"
)
# What is put behind an example to make it small; nothing where it is small as it is.
SMALLER = {
    "simulate": SMALL_RUN,
    "bench accuracy": "--seeds 1 --targets 1 --methods label-only --main label-only --workers 0 "
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
FIRST = dict.fromkeys(
    (
        "deploy enrol",
        "deploy renew",
        "deploy revoke",
        "deploy forget",
        "deploy rotate-key",
        "deploy operator",
    ),
    "deploy init",
)


def examples(name: str) -> list[list[str]]:
    """The arguments of each ``graft ...`` of a command's example."""
    text = COMMANDS[name].epilog or ""
    assert text.startswith("Example: graft "), f"{name}: got no example"
    return [shlex.split(each)[1:] for each in text.removeprefix("Example: ").split("; ")]


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
            env = {"GRAFT_OPERATOR_PASSWORD": "a password of its own"}
            done = CliRunner().invoke(app, [*arguments, *extra], env=env, catch_exceptions=False)
            assert done.exit_code == 0, done.output


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_the_example_and_the_format_option(name: str) -> None:
    done = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert " ".join(examples(name)[0]) in " ".join(done.stdout.split())
    # What runs for as long as people let it has nothing to print at the end.
    if name not in TOGETHER:
        assert "--format" in done.stdout
