"""What every command shares: the error stream's console, output formats, settings as text."""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console

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
