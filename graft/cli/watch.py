"""``graft watch``: the state of a run in the terminal, while it runs or afterwards."""

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.live import Live
from typer import Argument, Option

from graft.cli.shared import Format, FormatOption, print_json
from graft.core.files import AnyPath, open_path
from graft.errors import RunError

if TYPE_CHECKING:
    from graft.report.watch import RunWatcher


def watch(
    run: Annotated[str, Argument(help="Run folder, or a deployment's server folder.")],
    once: Annotated[bool, Option("--once", help="Show the current state and exit.")] = False,
    every_s: Annotated[float, Option(min=0.1, help="Update interval in seconds.")] = 1.0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the phase of a run, its accuracy so far, bytes and failures, until the run ends.

    The run is only read. With --format json the state is printed once.
    """
    from graft.report.watch import snapshot_dict, watch_view

    watcher = open_watcher(open_path(run))
    now = watcher.look()
    if output is Format.JSON:
        print_json(snapshot_dict(now))
        return
    terminal = Console()
    if once or not now.is_running:
        terminal.print(watch_view(now, datetime.now(UTC)))
        return
    with (
        contextlib.suppress(KeyboardInterrupt),  # the run continues without its viewer
        Live(watch_view(now, datetime.now(UTC)), console=terminal, auto_refresh=False) as live,
    ):
        while now.is_running:
            time.sleep(every_s)
            now = watcher.look()
            live.update(watch_view(now, datetime.now(UTC)), refresh=True)


def open_watcher(folder: AnyPath) -> "RunWatcher":
    """A watcher of a run folder, or of the run in a deployment's server folder."""
    from graft.report.watch import RunWatcher

    if not (folder / "server.toml").exists():
        return RunWatcher(folder, folder / "progress.json")
    from graft_server.round_schedule import read_rounds

    from graft.core.deployment import read_server

    server = Path(str(folder))
    own = server / "runs" / read_server(server).run
    if not (own / "run.toml").exists():
        raise RunError(f"{server}: its first round has not begun; graft deploy expand starts it")
    planned = len(read_rounds(server))
    return RunWatcher(own, server / "state" / "progress.json", planned or None)
