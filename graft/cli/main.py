"""The ``graft`` command: its groups of commands, and how an error ends it."""

import gc
import io
import re
import sys
from importlib import metadata
from itertools import pairwise
from typing import Annotated

import click
import typer
from typer import Option

from graft.cli.architecture import architecture_app
from graft.cli.bench import bench_app
from graft.cli.data_rows import data_app
from graft.cli.deploy import deploy_app
from graft.cli.forget import forget
from graft.cli.new import new
from graft.cli.runs import export_app, report, track, watch, world_app
from graft.cli.simulate import simulate
from graft.core.ending import EXIT_INTERRUPTED, end_process, run_process, tell_json

COMMANDS_PAGE = "docs/commands.md"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # main() states every error
)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(deploy_app, name="deploy")
app.add_typer(world_app, name="world")
app.add_typer(export_app, name="export")
app.add_typer(architecture_app, name="architecture")
app.command(
    epilog="Example: graft simulate --domains 80 --rounds 3 --seed 1 --out runs/first --workers 2"
)(simulate)
app.command(epilog="Example: graft new my-project")(new)
app.command(epilog="Example: graft report runs/first")(report)
app.command(epilog="Example: graft track runs/first --to tensorboard=runs/tensorboard")(track)
app.command(epilog="Example: graft watch runs/first")(watch)
app.command(epilog="Example: graft forget runs/first user-000004 --descendants retrain")(forget)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(metadata.version("graft-fl"))
        raise typer.Exit


@app.callback()
def graft(
    version: Annotated[
        bool,
        Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Grow a learning system to new domains: simulate, prepare data, report, measure, export."""


def main() -> None:
    """Run the command and exit; whatever ends it early is one line and an exit code."""
    code = run_process(_run, as_json=_wants_json)
    gc.freeze()  # a last search through all of torch for cycles takes a second
    end_process(code)


def _run() -> int:
    try:
        code = app(standalone_mode=False) or 0
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        # Click and typer both suggest a command.
        print(
            re.sub(r"( Did you mean [^?]*\?)\1", r"\1", shown.getvalue()), end="", file=sys.stderr
        )
        if _wants_json():
            tell_json(type(error).__name__, error.format_message(), error.exit_code, COMMANDS_PAGE)
        return error.exit_code
    except click.Abort:
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:  # typer turns Ctrl-C within a command into this code
        raise KeyboardInterrupt
    return int(code)


def _wants_json() -> bool:
    """Whether this command was asked for JSON; its arguments may not have been understood."""
    words = sys.argv[1:]
    return "--format=json" in words or ("--format", "json") in pairwise(words)
