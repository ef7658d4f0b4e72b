"""``graft deploy expand``: a round of a deployment, from the server's machine."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from graft.cli.deploy.server import tell
from graft.cli.shared import Format, FormatOption, console

_LOOK_S = 1.0
_ASK_FLOWER_EVERY_S = 15.0  # its command takes seconds of processor time
_AGAIN_S = 10.0


def expand(
    domains: Annotated[
        list[str] | None,
        typer.Argument(help="Who arrives; none: go on with a round that is unfinished."),
    ] = None,
    server: Annotated[Path, typer.Option(help="The server's folder.")] = Path("server"),
    initial_domains: Annotated[
        bool, typer.Option("--initial", help="The first round: they train on all their labels.")
    ] = False,
    join_timeout_s: Annotated[
        float, typer.Option(help="Longest wait for devices; who is absent fails by name.")
    ] = 120.0,
    patience_s: Annotated[
        float, typer.Option(help="Longest wait for a device that was lost in the middle.")
    ] = 600.0,
    deadline_s: Annotated[
        float, typer.Option(help="Give up after so long, seconds; what is done is kept.")
    ] = 24 * 3600.0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Grow the system by new domains: one round. Their devices must be running, or come soon.

    An expansion that was interrupted, by whatever, goes on where it was: run the command again
    without domains; where its round is over by then, what came of it is shown. Exit code 0 only if
    every domain of the round was served.
    """
    from graft_server.deployment.enrolment import enrolled
    from graft_server.flower.deployed_app import run_folder
    from graft_server.round_schedule import plan_round, read_rounds

    from graft.errors import ConfigError, EdgeError, ExpansionFailedError, RunError

    server = server.absolute()
    folder = run_folder(server)
    finished = folder.count_rounds()
    if domains:
        strangers = sorted(set(domains) - set(enrolled(server)))
        if strangers:
            raise ConfigError(f"domain {strangers[0]}: is not enrolled; graft deploy enrol first")
        if initial_domains != (finished == 0):
            wanted = "--initial for the first round" if finished == 0 else "no --initial again"
            raise ConfigError(f"round {finished}: wanted {wanted}, and only then")
        plan_round(server, domains, folder.read_state())
    rounds = read_rounds(server)
    if not rounds:
        raise RunError(f"{server}: no round is unfinished; name the domains that arrive")
    if finished == len(rounds):
        # The command may have been interrupted when its round was as good as over.
        finished -= 1
        tell(f"no round is unfinished; this came of round {finished}")
    until_s = time.monotonic() + deadline_s
    with _bar() as bar:
        while folder.count_rounds() < len(rounds):
            if time.monotonic() > until_s:
                raise EdgeError(
                    f"round {finished}: not over after {deadline_s:.0f} s; run it again"
                )
            _run_once(server, folder, len(rounds), bar, until_s, (join_timeout_s, patience_s))
    rows = [row for row in folder.read_rows(len(rounds)) if row.round_index >= finished]
    _show(rows, output)
    failed = [f"{row.domain_id} ({row.method}): {row.error}" for row in rows if row.error]
    if failed:
        raise ExpansionFailedError(f"{len(failed)} failed: " + "; ".join(failed))


def _run_once(
    server: Path,
    folder: Any,
    num_rounds: int,
    bar: Progress,
    until_s: float,
    waits_s: tuple[float, float],
) -> None:
    """Start the ServerApp, or find it running, and stay until it ended or the rounds are over."""
    from graft_server.flower.superlink import open_superlink

    from graft.core.files import replace_file
    from graft.errors import EdgeError, GraftError

    kept = server / "state" / "flower-run"
    try:
        run_id = kept.read_text("utf-8") if kept.exists() else ""
        if not run_id or open_superlink(server).run_status(run_id).startswith("finished"):
            if folder.read_failure():  # an earlier round's must not be taken for this one's
                folder.note(reason="")
            expansion = (server / "expansion.toml").read_text("utf-8")
            run_id = open_superlink(server).start_run(expansion, *waits_s)
            replace_file(kept, run_id.encode())
    except GraftError as error:
        tell(f"{error}; again in {_AGAIN_S:.0f} s")
        time.sleep(_AGAIN_S)
        return
    task = bar.add_task("start", total=None, round=0)
    ask_s = time.monotonic() + _ASK_FLOWER_EVERY_S
    try:
        while folder.count_rounds() < num_rounds and time.monotonic() < until_s:
            _follow(server / "state" / "progress.json", bar, task)
            time.sleep(_LOOK_S)
            if time.monotonic() > ask_s:
                ask_s = time.monotonic() + _ASK_FLOWER_EVERY_S
                try:
                    status = open_superlink(server).run_status(run_id)
                except GraftError:
                    continue  # the SuperLink is starting again
                if status.startswith("finished") and folder.count_rounds() < num_rounds:
                    if failure := folder.read_failure():
                        raise EdgeError(f"round not over: {failure}")
                    tell(f"the ServerApp ended ({status}); again")
                    return
    finally:
        bar.remove_task(task)


def _follow(path: Path, bar: Progress, task: Any) -> None:
    if path.exists():
        told = json.loads(path.read_text("utf-8"))
        bar.update(
            task,
            description=told["phase"],
            completed=told["done"],
            total=told["wanted"],
            round=told["round"],
        )


def _bar() -> Progress:
    return Progress(
        TextColumn("round {task.fields[round]} {task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _show(rows: list[Any], output: Format) -> None:
    facts = [
        {
            "domain": row.domain_id,
            "method": row.method,
            "round": row.round_index,
            "accuracy": row.accuracy,
            "sources": list(row.source_domains),
            "model": row.model_id,
            "error": row.error and f"{row.error}: {row.error_message}",
        }
        for row in rows
    ]
    if output is Format.JSON:
        print(json.dumps(facts, indent=2))
        return
    table = Table("Domain", "Method", "Accuracy", "Taught by", "What went wrong")
    for fact in facts:
        accuracy = "" if fact["accuracy"] is None else f"{fact['accuracy']:.1%}"
        table.add_row(
            fact["domain"],
            fact["method"],
            accuracy,
            ", ".join(fact["sources"]),
            fact["error"] or "",
        )
    console.print(table)
