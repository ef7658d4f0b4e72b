"""Generates docs/commands.md and docs/configuration.md from the commands and the settings.

Run it in an environment that holds graft: ``python .ci/reference.py``.
"""

import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import click  # noqa: E402
import typer  # noqa: E402
from pydantic.fields import FieldInfo  # noqa: E402

from graft.cli.main import app  # noqa: E402
from graft.core.config import ExpansionConfig  # noqa: E402

BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
COMMANDS_HEAD = """# Commands

Every command of `graft`, as `graft COMMAND --help` shows it. `make reference` generates this page
from the commands.

The exit code is 0 for success, 1 for a failure (the last line names the [error](errors.md)), 2
for an unknown option or argument, 130 for an interrupt, and 70 for an internal error (the last
line names the file with its traceback). Results go to the standard output, as a table or with
`--format json`; progress goes to the error stream.
"""
CONFIGURATION_HEAD = """# Configuration

Every key of `ExpansionConfig`, which alone decides the results of a run; workers, folders and
addresses are options of the commands. `make reference` generates this page from
`graft/core/config.py`.

A key is set with `--set key=value` (a list as JSON: `--set 'comparisons=["hat"]'`) or in a TOML
file with `--config`. An option of its own (`--rounds`, `--seed`) takes precedence over `--set`,
and that over the file. An unknown key, a wrong type and a value outside its bounds raise a
`ConfigError` before anything runs; the error for a key's former name gives the present one. All
numbers are finite. The file may hold any part of this:

```toml
rounds = 2
comparisons = ["label-only", "hat"]

[selection]
num_sources = 3

[training]
max_steps = 150
```

`run.toml` of every run folder holds the whole configuration of its run.
"""


def main() -> None:
    for name, text in pages().items():
        (ROOT / "docs" / name).write_text(text, "utf-8")


def pages() -> dict[str, str]:
    """Each generated page's name and text."""
    return {"commands.md": commands_page(), "configuration.md": configuration_page()}


def commands_page() -> str:
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)
    return COMMANDS_HEAD + "".join(_command(path, each) for path, each in _commands(root))


def _commands(group: click.Group, path: str = "graft") -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _command(path: str, command: click.Command) -> str:
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    words = "".join(f" {each.make_metavar(click.Context(command))}" for each in arguments)
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help or ""))
    example = (command.epilog or "").removeprefix("Example: ")
    rows = "".join(_parameter(each, command) for each in command.params)
    return (
        f"\n## {path}\n\n`{path}{words} [OPTIONS]`\n\n{text}\n\n"
        f"| argument or option | default | meaning |\n| --- | --- | --- |\n{rows}\n"
        f"Example: `{example}`\n"
    )


def _parameter(each: click.Parameter, command: click.Command) -> str:
    if isinstance(each, click.Argument):
        name = each.make_metavar(click.Context(command))
    else:
        name = ", ".join([*each.opts, *each.secondary_opts])
    if isinstance(each.type, click.Choice):
        name += " " + "/".join(str(getattr(one, "value", one)) for one in each.type.choices)
    elif not getattr(each, "is_flag", False) and isinstance(each, click.Option):
        name += f" {each.type.name.upper().removesuffix(' RANGE')}"
    default = "" if each.default is None or callable(each.default) else each.default
    if getattr(each, "is_flag", False):
        default = "on" if default else "off"
    shown = f"`{getattr(default, 'value', default)}`" if default != "" else ""
    shown = "required" if each.required else shown
    return _row(f"`{name}`", shown, _help(each, command))


def _help(each: click.Parameter, command: click.Command) -> str:
    """The help of a parameter, as the command's own signature has it: newer click drops that of
    arguments."""
    signature = typing.get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    for note in getattr(signature[each.name or ""], "__metadata__", ()):
        return str(note.help or "")
    return ""


def configuration_page() -> str:
    sections = [_section("", ExpansionConfig)]
    for name, field in fields_of(ExpansionConfig).items():
        if dataclasses.is_dataclass(field.annotation):
            sections.append(_section(f"{name}.", field.annotation))
    return CONFIGURATION_HEAD + "".join(sections)


def fields_of(cls: Any) -> dict[str, FieldInfo]:
    """The keys of a settings class as pydantic knows them: types, bounds and descriptions."""
    fields: dict[str, FieldInfo] = cls.__pydantic_fields__
    return fields


def _section(prefix: str, cls: Any) -> str:
    rows = "".join(
        _row(f"`{prefix}{name}`", _default(field.default), _constraint(field), field.description)
        for name, field in fields_of(cls).items()
        if field.description  # nested tables have none
    )
    title = prefix.rstrip(".") or "The run itself"
    text = inspect.cleandoc(cls.__doc__ or "")
    head = "| key | default | constraint | meaning |\n| --- | --- | --- | --- |\n"
    return f"\n## {title}\n\n{text}\n\n{head}{rows}"


def _default(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, float):
        return f"`{value:.6g}`"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def _constraint(field: FieldInfo) -> str:
    bounds = [
        f"{words} {getattr(bound, name):g}"
        for bound in field.metadata
        for name, words in BOUNDS.items()
        if hasattr(bound, name)
    ]
    return ", ".join([_type(field.annotation), *bounds])


def _type(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        return _type(next(arg for arg in typing.get_args(hint) if arg is not types.NoneType))
    if origin is Literal:
        return "one of " + ", ".join(f"`{option}`" for option in typing.get_args(hint))
    if origin is tuple:
        return "list of strings"
    return {int: "integer", float: "number", bool: "true or false", str: "string"}[hint]


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |\n"


if __name__ == "__main__":
    main()
