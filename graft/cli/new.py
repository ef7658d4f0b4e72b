"""``graft new``: a folder to start a project in."""

import shlex
from importlib import resources
from pathlib import Path
from typing import Annotated

from typer import Argument

from graft.cli.shared import Format, FormatOption, print_facts
from graft.core.outputs import new_folder

_FILES = ("README.md", "graft.toml", "own_model.py", "own_method.py", "test_project.py")


def new(
    folder: Annotated[Path, Argument(help="Folder to make.")], output: FormatOption = Format.TABLE
) -> None:
    """Make a project: a configuration, a model and a method of one's own, a test that passes."""
    found = resources.files("graft.cli") / "project"
    with new_folder(folder, overwrite=False) as made:
        for name in _FILES:
            (made / name).write_bytes((found / f"{name}.txt").read_bytes())
    next_command = f"cd {shlex.quote(str(folder))} && python -m pytest"
    print_facts({"project": str(folder), "files": list(_FILES), "next": next_command}, output)
