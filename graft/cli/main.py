"""The ``graft`` command: its groups of commands, and how an error ends it."""

import gc
import logging
import os
import sys
import tempfile
import traceback
from importlib import metadata
from typing import Annotated

import click
import typer
from typer import Option

from graft.cli.bench import bench_app
from graft.cli.data_rows import data_app
from graft.cli.deploy import deploy_app
from graft.cli.forget import forget
from graft.cli.runs import export_app, report, track, watch, world_app
from graft.cli.shared import announce, console
from graft.cli.simulate import simulate
from graft.errors import GraftError, missing_extra

EXIT_ERROR = 1
EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
# The libraries of the extras; with the base dependencies alone a command may lack one.
_EXTRAS = {
    "jinja2": "report", "matplotlib": "report",
    "ray": "simulation", "simpy": "simulation", "sklearn": "simulation",
    "prometheus_client": "server", "httpx": "server", "starlette": "server", "uvicorn": "server",
}  # fmt: skip

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,  # main() states every error
)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(deploy_app, name="deploy")
app.add_typer(world_app, name="world")
app.add_typer(export_app, name="export")
app.command(
    epilog="Example: graft simulate --domains 80 --rounds 3 --seed 1 --out runs/first --workers 2"
)(simulate)
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
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    code = _run()
    gc.freeze()  # a last search through all of torch for cycles takes a second
    sys.exit(code)


def _run() -> int:
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
    except GraftError as error:
        return _show_error(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone; nothing must be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _EXTRAS:
            return _show_internal_error(error)
        return _show_error(missing_extra(library, _EXTRAS[library]))
    except Exception as error:
        return _show_internal_error(error)
    if code == EXIT_INTERRUPTED:  # typer turns Ctrl-C within a command into this code
        announce("interrupted")
    return int(code)


def _show_error(error: GraftError) -> int:
    console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
    announce(f"{error} (see {error.page()})")
    return EXIT_ERROR


def _show_internal_error(error: Exception) -> int:
    """One line that names the error; its traceback goes to a file, without local variables."""
    handle, path = tempfile.mkstemp(prefix="graft-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    what = " ".join(str(error).split()) or "no message"
    announce(f"internal error: {type(error).__name__}: {what}; the traceback is in {path}")
    return EXIT_INTERNAL
