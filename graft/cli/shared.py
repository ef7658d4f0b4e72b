"""What commands share: the error stream's console, output formats, settings as text, bars."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

# Progress and news go to the error stream, so that --format json stays clean on the other.
console = Console(stderr=True)


class Format(StrEnum):
    """How a command prints what it found."""

    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="A table to read, or JSON.")]
SettingOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any key, e.g. --set selection.num_sources=3; repeatable."),
]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        help="Send each round's figures to a tracker too: tensorboard=FOLDER, wandb=FOLDER "
        "(offline), mlflow=FOLDER or its address; repeatable. Wants the extra graft-fl[trackers].",
    ),
]


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and values of KEY=VALUE texts; raises BadParameter for any other text."""
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set {text}: wanted KEY=VALUE")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value  # a bare word is a string
    return settings


def print_facts(facts: dict[str, Any], output: Format) -> None:
    """What a command found: a line a fact, a line each of a list's items, or JSON."""
    if output is Format.JSON:
        print(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        lines = value if isinstance(value, list | tuple) else [value if value != {} else "none"]
        for line in lines or ["none"]:
            print(f"{key:14} {line}")
            key = ""


@contextmanager
def file_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for long work on files: (what, done, of)."""
    with Progress(console=console, transient=True) as bars:
        bar = bars.add_task("start", total=None)

        def show(what: str, done: int, wanted: int) -> None:
            bars.update(bar, description=what, completed=done, total=wanted or None)

        yield show
