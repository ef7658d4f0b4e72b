"""Parts that commands share: options, the configuration they give, output, progress bars."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from graft.core.config import ExpansionConfig
from graft.core.config_files import read_config, with_settings
from graft.core.ending import printed_json
from graft.core.text import printable

# Progress and news go to the error stream, so that --format json stays clean on the other.
console = Console(stderr=True)


class Format(StrEnum):
    """Output format of a command."""

    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[Format, Option("--format", help="Output as a table or as JSON.")]
ConfigOption = Annotated[Path | None, Option("--config", help="TOML file of configuration keys.")]
SettingOption = Annotated[
    list[str] | None,
    Option(
        "--set", help="Set a configuration key, e.g. --set selection.num_sources=3; repeatable."
    ),
]
DataOption = Annotated[Path | None, Option(help="Domain folder. Default: the embedded IMU world.")]
OutOption = Annotated[Path, Option(help="Domain folder to write.")]
OverwriteOption = Annotated[bool, Option(help="Replace the contents of OUT.")]
RunArgument = Annotated[str, Argument(help="Run folder.")]
ServerOption = Annotated[Path, Option(help="The server's folder.")]
TrackOption = Annotated[
    list[str] | None,
    Option(
        "--track",
        help="Also send the figures of each round to a tracker: tensorboard=FOLDER, wandb=FOLDER "
        "(offline), mlflow=FOLDER or mlflow=ADDRESS; repeatable. Needs graft-fl[trackers].",
    ),
]


def read_settings(texts: Sequence[str] | None) -> dict[str, Any]:
    """Dotted keys and values of KEY=VALUE texts; raises BadParameter for any other text."""
    settings: dict[str, Any] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set {text}: wanted KEY=VALUE")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value  # a bare word is a string
    return settings


def read_configuration(
    file: Path | None,
    settings: Sequence[str] | None,
    *,
    data: Path | None = None,
    default: ExpansionConfig | None = None,
    changes: Mapping[str, Any] | None = None,
) -> ExpansionConfig:
    """The file's configuration (or the default), then ``changes``, --set, and the data folder."""
    changes = {**(changes or {}), **read_settings(settings)}
    if data is not None:
        changes |= {"world.kind": "folder", "world.path": str(data.absolute())}
    config = read_config(file) if file is not None else default or ExpansionConfig()
    return with_settings(config, changes)


def split_names(text: str | None) -> tuple[str, ...]:
    """The names of a comma-separated option."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def announce(news: str) -> None:
    """Print a line to the error stream: no markup, no wrapping, nothing but printable text."""
    console.print(printable(news), highlight=False, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print plain values, and paths as texts, to the standard output."""
    printed_json(now=True)
    print(json.dumps(value, indent=2, default=str))


def print_table(table: Table) -> None:
    """Print a table to the standard output; a piped one is not cut at 80 characters."""
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def add_texts(table: Table, *cells: object) -> None:
    """Add a row of plain text: a domain id such as "[red]" is a name, not markup."""
    table.add_row(*(Text(printable(cell)) for cell in cells))


def print_facts(facts: dict[str, Any], output: Format) -> None:
    """Print names and values: a line for each value or item of a list, or JSON."""
    if output is Format.JSON:
        print_json(facts)
        return
    for key, value in facts.items():
        lines = value if isinstance(value, list | tuple) else [value if value != {} else "none"]
        for line in lines or ["none"]:
            print(f"{key:14} {printable(line)}")
            key = ""


def progress_bars(before: str, after: str = "") -> Progress:
    """Bars on the error stream: a text of the task, done of total, another text, time."""
    return Progress(
        TextColumn(before),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(after),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


@contextmanager
def file_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for work on files; yields a function of (what, done, total)."""
    with Progress(console=console, transient=True) as bars:
        bar = bars.add_task("start", total=None)

        def show(what: str, done: int, wanted: int) -> None:
            bars.update(bar, description=what, completed=done, total=wanted or None)

        yield show
