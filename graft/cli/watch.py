"""``graft watch``: a run that goes on, or is over, in the terminal."""

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from graft.cli.shared import Format, FormatOption
from graft.core.files import AnyPath, open_path
from graft.errors import RunError

if TYPE_CHECKING:
    from graft.report.watch import RunWatcher


def watch(
    run: Annotated[str, typer.Argument(help="A run folder, or a deployment's server folder.")],
    once: Annotated[bool, typer.Option("--once", help="Show it as it is now, and end.")] = False,
    every_s: Annotated[float, typer.Option(min=0.1, help="How often to look, seconds.")] = 1.0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show where a run is: its phase, accuracy so far, bytes, failures. Ends when the run does.

    Only reads; --format json shows it once.
    """
    from graft.report.watch import snapshot_dict, watch_view

    watcher = open_watcher(open_path(run))
    now = watcher.look()
    if output is Format.JSON:
        print(json.dumps(snapshot_dict(now), indent=2))
        return
    console = Console()
    if once or not now.is_running:
        console.print(watch_view(now, datetime.now(UTC)))
        return
    with Live(watch_view(now, datetime.now(UTC)), console=console, auto_refresh=False) as live:
        try:
            while now.is_running:
                time.sleep(every_s)
                now = watcher.look()
                live.update(watch_view(now, datetime.now(UTC)), refresh=True)
        except KeyboardInterrupt:
            pass  # who looks may leave; the run goes on


def open_watcher(folder: AnyPath) -> "RunWatcher":
    """A watcher of a run folder, or of the run that a deployment's server folder holds."""
    from graft.report.watch import RunWatcher

    if not (folder / "server.toml").exists():
        return RunWatcher(folder, folder / "progress.json")
    from pathlib import Path

    from graft_server.round_schedule import read_rounds

    from graft.core.deployment import read_server

    server = Path(str(folder))
    own = server / "runs" / read_server(server).run
    if not (own / "run.toml").exists():
        raise RunError(f"{server}: its first round has not begun; graft deploy expand begins it")
    planned = len(read_rounds(server))
    return RunWatcher(own, server / "state" / "progress.json", planned or None)
