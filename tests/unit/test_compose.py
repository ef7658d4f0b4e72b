"""No Docker engine is needed to see that the compose file starts commands that exist."""

import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from graft.cli import app

ROOT = Path(__file__).resolve().parents[2]


def services() -> dict[str, dict[str, object]]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]


@pytest.mark.parametrize("name", services())
def test_every_service_runs_a_command_that_graft_has(name: str) -> None:
    subcommand, *arguments = services()[name]["command"]
    group = typer.main.get_command(app)
    command = group.get_command(typer.Context(group), subcommand)
    # Raises where an option is unknown or a value is not of its type; runs nothing.
    context = command.make_context(subcommand, list(arguments))
    assert str(context.params["out"]) == "/runs/demo"


def test_the_image_copies_every_package_of_the_wheel() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    copied = (ROOT / "Dockerfile").read_text("utf-8")
    for package in table["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"COPY {package} {package}\n" in copied
