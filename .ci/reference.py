"""Writes docs/commands.md and docs/configuration.md: every command, every key, from the code.

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

from graft.cli.main import app  # noqa: E402
from graft.core.config import ExpansionConfig, with_settings  # noqa: E402
from graft.errors import ConfigError  # noqa: E402

COMMANDS_HEAD = """# Commands

Every command of `graft`, as `graft COMMAND --help` tells it. `make reference` writes this page anew
from the commands themselves.

A command ends with 0 where all went well, 1 where it did not (the last line names the
[error](errors.md)), 2 where it was called with words it does not know. What it found goes to the
standard output, as a table or with `--format json`; progress and news go to the error stream.
"""
CONFIGURATION_HEAD = """# Configuration

Every key of `ExpansionConfig`, the record that alone decides what comes of a run; workers, folders
and addresses are options of the commands. `make reference` writes this page anew from
`graft/core/config.py`.

A key is given as `--set key=value` (a list as JSON: `--set 'comparisons=["hat"]'`), or in a TOML
file with `--config`; an option of its own (`--rounds`, `--seed`) wins over `--set`, and that over
the file. An unknown key, a wrong type and a value out of bounds are refused before anything runs.
The file may hold any part of this:

```toml
rounds = 2
comparisons = ["label-only", "hat"]

[selection]
num_sources = 3

[training]
max_steps = 150
```

`run.toml` of every run folder holds the whole configuration that it ran with.
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
        f"| argument or option | by default | what |\n| --- | --- | --- |\n{rows}\n"
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
    return _row(f"`{name}`", shown, _told(each, command))


def _told(each: click.Parameter, command: click.Command) -> str:
    """The help of a parameter, as the command's own signature has it: newer click drops that of
    arguments."""
    signature = typing.get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    for note in getattr(signature[each.name or ""], "__metadata__", ()):
        return str(note.help or "")
    return ""


def configuration_page() -> str:
    sections = [_section("", ExpansionConfig())]
    for item in dataclasses.fields(ExpansionConfig):
        value = getattr(ExpansionConfig(), item.name)
        if dataclasses.is_dataclass(value):
            sections.append(_section(f"{item.name}.", value))
    return CONFIGURATION_HEAD + "".join(sections)


def _section(prefix: str, config: Any) -> str:
    hints = typing.get_type_hints(type(config))
    plain = [
        item.name
        for item in dataclasses.fields(config)
        if not dataclasses.is_dataclass(getattr(config, item.name))
    ]
    rows = "".join(
        _row(
            f"`{prefix}{name}`",
            _default(getattr(config, name)),
            ", ".join(filter(None, (_type(hints[name]), _bounds(prefix + name, hints[name])))),
        )
        for name in plain
    )
    title = prefix.rstrip(".") or "The run itself"
    text = inspect.cleandoc(type(config).__doc__ or "").replace("``", "`")
    return f"\n## {title}\n\n{text}\n\n| key | by default | wanted |\n| --- | --- | --- |\n{rows}"


def _default(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, float):
        return f"`{value:.6g}`"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def _type(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        return _type(next(arg for arg in typing.get_args(hint) if arg is not types.NoneType))
    if origin is Literal:
        return "one of " + ", ".join(f"`{option}`" for option in typing.get_args(hint))
    if origin is tuple:
        return "a list of names"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[hint]


def _bounds(key: str, hint: Any) -> str:
    """What the configuration itself says it wants, when it is asked for something absurd."""
    kinds = typing.get_args(hint) or (hint,)
    absurd: Any = -1 if int in kinds else -1.0 if float in kinds else None
    if absurd is None:
        return ""
    try:
        with_settings(ExpansionConfig(), {key: absurd})
    except ConfigError as error:
        return str(error).rpartition("wanted ")[2]
    return ""


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |\n"


if __name__ == "__main__":
    main()
