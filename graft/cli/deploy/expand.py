"""``graft deploy expand``: a round of a deployment, started from the server's machine."""

import json
import shlex
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from rich.progress import Progress
from rich.table import Table
from typer import Argument, Exit, Option

from graft.cli.shared import (
    Format,
    FormatOption,
    ServerOption,
    add_texts,
    announce,
    console,
    print_json,
    progress_bars,
)
from graft.core.text import did_you_mean

_CHECK_EVERY_S = 1.0
_ASK_FLOWER_EVERY_S = 15.0  # its command takes seconds of processor time
_RETRY_AFTER_S = 10.0


def expand(
    domains: Annotated[
        list[str] | None,
        Argument(help="Target domains of the round. Default: continue an unfinished round."),
    ] = None,
    server: ServerOption = Path("server"),
    initial_domains: Annotated[
        bool,
        Option("--initial", help="The first round: initial domains train on all their labels."),
    ] = False,
    grow: Annotated[
        list[str] | None,
        Option(
            help="The named domains are in the system and come back with this new class, which "
            "their models learn without forgetting the old ones; repeatable."
        ),
    ] = None,
    join_timeout_s: Annotated[
        float, Option(help="Longest wait for devices, in seconds; absent ones then fail.")
    ] = 120.0,
    patience_s: Annotated[
        float, Option(help="Longest wait for a device lost during a round, in seconds.")
    ] = 600.0,
    answer_s: Annotated[
        float | None,
        Option(help="Longest wait for one answer of a device, in seconds. Default: 3600."),
    ] = None,
    deadline_s: Annotated[
        float, Option(help="Longest duration of the command, in seconds; results are kept.")
    ] = 24 * 3600.0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Run one round: the devices of new domains join and are served.

    To continue an interrupted round, repeat the command without domains; if the round has finished
    in the meantime, its results are shown. Models that are to be trained again after a domain was
    forgotten are part of the next round, which may have no other domains. With --grow the round
    is one of task growth (`growth.method` of the configuration). Exit code 0 only if every domain
    of the round was served.
    """
    from graft_server.flower.deployed_app import run_folder
    from graft_server.round_schedule import read_rounds
    from graft_server.serving.hold import serving_paused, write_waits

    from graft.errors import EdgeError, ExpansionFailedError

    server = server.absolute()
    folder, waits_s = run_folder(server), (join_timeout_s, patience_s, answer_s)
    unfinished = folder.count_rounds() < len(read_rounds(server))
    # A server that serves by itself ends what it has begun with first.
    paused = serving_paused(server, announce) if domains or not unfinished else nullcontext()
    with paused:
        write_waits(server, *waits_s)
        finished = _plan(server, folder, domains or (), grow or (), initial_domains)
        if folder.read_failure():  # one of an earlier round, or of an earlier try
            folder.note(reason="")
    rounds = read_rounds(server)
    until_s = time.monotonic() + deadline_s
    with progress_bars("round {task.fields[round]} {task.description:8}") as bar:
        while folder.count_rounds() < len(rounds):
            if time.monotonic() > until_s:
                raise EdgeError(
                    f"round {finished}: unfinished after {deadline_s:.0f} s; repeat the command"
                )
            try:
                _run_once(server, folder, len(rounds), bar, until_s, waits_s)
            except KeyboardInterrupt:
                where = shlex.quote(str(server))
                announce(f"the round goes on; see it with: graft deploy expand --server {where}")
                raise
    rows = [row for row in folder.read_rows(len(rounds)) if row.round_index >= finished]
    _show(rows, output)
    failed = [f"{row.domain_id} ({row.method}): {row.error}" for row in rows if row.error]
    if failed:
        raise ExpansionFailedError(f"{len(failed)} failed: " + "; ".join(failed))


def _plan(
    server: Path, folder: Any, domains: Sequence[str], grow: Sequence[str], initial_domains: bool
) -> int:
    """Plan the round that the command asks for, if any; the first round whose results it shows."""
    from graft_server.deployment.enrolment import enrolled
    from graft_server.deployment.forgetting import refused_domains
    from graft_server.flower.deployed_app import expansion_lock
    from graft_server.forgetting import read_forgotten
    from graft_server.round_schedule import plan_growth, plan_round, read_rounds

    from graft.core.exchange import Growth
    from graft.data.dataset_table import read_dataset
    from graft.errors import ConfigError, RunError
    from graft.rounds.growth_training import class_mask

    state, forgotten = folder.read_state(), read_forgotten(folder.path)
    finished, again = state.round_index, forgotten.asked_again(state)
    if domains:
        strangers = sorted(set(domains) - set(enrolled(server)))
        if strangers:
            hint = did_you_mean(strangers[0], enrolled(server))
            raise ConfigError(
                f"domain {strangers[0]}: is not enrolled; graft deploy enrol first{hint}"
            )
        if initial_domains != (finished == 0):
            wanted = "--initial for the first round" if finished == 0 else "no --initial again"
            raise ConfigError(f"round {finished}: wanted {wanted}, and only then")
        if gone := sorted(set(domains) & refused_domains(server, folder)):
            raise RunError(f"domain {gone[0]}: was forgotten; graft deploy enrol admits it anew")
        if grow:
            class_mask("--grow", read_dataset(server).task, tuple(grow))
            growths = [Growth(domain_id=d, classes=tuple(grow)) for d in domains]
            plan_growth(server, growths, state)
        else:
            plan_round(server, domains, state, again)
    elif grow:
        raise ConfigError("--grow: got no domain, wanted those that come back")
    elif again and finished == len(read_rounds(server)):
        plan_round(server, (), state)
    rounds = read_rounds(server)
    if not rounds:
        raise RunError(f"{server}: no round is unfinished; name the domains that arrive")
    if finished == len(rounds):
        # The command may have been interrupted just before its round finished.
        with expansion_lock(server):
            folder.finish_closed()
        finished -= 1
        announce(f"no round is unfinished; these are the results of round {finished}")
    return int(finished)


def appeal(
    domain: Annotated[str, Argument(help="The domain whose models were reported.")],
    server: ServerOption = Path("server"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Check a reported domain's models again, and clear the reports where they have no fault.

    Exit code 1 where the server finds a fault again. The outcome holds from the next round on.
    """
    from graft_server import appeals
    from graft_server.flower.deployed_app import run_folder
    from graft_server.serving.hold import serving_paused

    server = server.absolute()
    with serving_paused(server, announce):
        outcome = appeals.appeal(run_folder(server), domain)
    if output is Format.JSON:
        print_json(asdict(outcome))
    else:
        result = f"fault found again: {outcome.fault}" if outcome.fault else "reports cleared"
        announce(f"{domain}: {outcome.reports} confirmed reports; {result}")
    if outcome.fault:
        raise Exit(1)


def _run_once(
    server: Path,
    folder: Any,
    num_rounds: int,
    bar: Progress,
    until_s: float,
    waits_s: tuple[float, float, float | None],
) -> None:
    """Start the ServerApp, or find it running, and wait until it or the rounds have ended."""
    from graft_server.flower.deployed_app import is_expanding
    from graft_server.flower.superlink import open_superlink
    from graft_server.serving.hold import is_serving

    from graft.core.files import replace_file
    from graft.errors import EdgeError, GraftError

    run_file, serving = server / "state" / "flower-run", is_serving(server)
    try:
        run_id = run_file.read_text("utf-8") if run_file.exists() else ""
        if serving:
            pass  # it runs what is planned
        elif not run_id or open_superlink(server).run_status(run_id).startswith("finished"):
            expansion = (server / "expansion.toml").read_text("utf-8")
            run_id = open_superlink(server).start_run(expansion, *waits_s)
            replace_file(run_file, run_id.encode())
    except GraftError as error:
        announce(f"{error}; again in {_RETRY_AFTER_S:.0f} s")
        time.sleep(_RETRY_AFTER_S)
        return
    task = bar.add_task("start", total=None, round=0)
    ask_s = time.monotonic() + _ASK_FLOWER_EVERY_S
    try:
        while folder.count_rounds() < num_rounds and time.monotonic() < until_s:
            _follow(server / "state" / "progress.json", bar, task)
            time.sleep(_CHECK_EVERY_S)
            if time.monotonic() > ask_s:
                ask_s = time.monotonic() + _ASK_FLOWER_EVERY_S
                if serving:
                    if failure := folder.read_failure():
                        raise EdgeError(f"round unfinished: {failure}")
                    if is_serving(server):
                        continue
                    announce("the server serves no more; starting a ServerApp")
                    return
                if is_expanding(server):
                    continue
                try:
                    status = open_superlink(server).run_status(run_id)
                except GraftError:
                    continue  # the SuperLink is restarting
                if status.startswith("finished") and folder.count_rounds() < num_rounds:
                    if failure := folder.read_failure():
                        raise EdgeError(f"round unfinished: {failure}")
                    announce(f"the ServerApp ended ({status}); starting it again")
                    return
        if folder.count_rounds() >= num_rounds:
            run_file.unlink(missing_ok=True)  # the next round need not ask Flower how it ended
    finally:
        bar.remove_task(task)


def _follow(path: Path, bar: Progress, task: Any) -> None:
    if path.exists():
        now = json.loads(path.read_text("utf-8"))
        done, total = now["done"], now["wanted"]
        bar.update(task, description=now["phase"], completed=done, total=total, round=now["round"])


def _show(rows: list[Any], output: Format) -> None:
    facts = [
        {
            "domain": row.domain_id,
            "method": row.method,
            "round": row.round_index,
            "accuracy": row.score,
            "source_of_accuracy": "reported by the device",
            "sources": list(row.source_domains),
            "model": row.model_id,
            "error": row.error and f"{row.error}: {row.error_message}",
        }
        for row in rows
    ]
    if output is Format.JSON:
        print_json(facts)
        return
    table = Table("Domain", "Method", "Accuracy (reported)", "Sources", "Error")
    for fact in facts:
        accuracy = "" if fact["accuracy"] is None else f"{fact['accuracy']:.1%}"
        sources = ", ".join(fact["sources"])
        add_texts(table, fact["domain"], fact["method"], accuracy, sources, fact["error"] or "")
    console.print(table)
