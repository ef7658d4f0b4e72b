"""The ``graft`` command: the only place that wires edges to the library."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from graft.cli.bench import bench_app
from graft.cli.data import data_app
from graft.cli.deploy import deploy_app
from graft.cli.export import export_app
from graft.cli.shared import (
    Format,
    FormatOption,
    SettingOption,
    TrackOption,
    console,
    print_facts,
    read_settings,
)
from graft.cli.watch import open_watcher, watch
from graft.cli.world import world_app
from graft.core.config import ExpansionConfig, configure, read_config
from graft.core.files import AnyPath, open_path, replace_file
from graft.errors import GraftError

if TYPE_CHECKING:
    from graft_server.observability.progress import RoundProgress
    from graft_server.round_loop import OnProgress

    from graft.data.domain import World

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # keys and labels would stand in a traceback
)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(deploy_app, name="deploy")
app.add_typer(world_app, name="world")
app.add_typer(export_app, name="export")
app.command(epilog="Example: graft watch runs/first")(watch)


def _show_version(asked: bool) -> None:
    if asked:
        print(metadata.version("graft-fl"))
        raise typer.Exit


@app.callback()
def graft(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Tell the version and end.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Grow a learning system to new domains: simulate, prepare data, report, measure, export."""


def main() -> None:
    """Run the command; a GraftError is one clear line, its page behind it, and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        app()
    except GraftError as error:
        console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        console.print(f"{error} (see {error.page()})", markup=False, highlight=False)
        sys.exit(1)


@app.command(
    epilog="Example: graft simulate --domains 80 --rounds 3 --seed 1 --out runs/first --workers 2"
)
def simulate(
    out: Annotated[
        str | None,
        typer.Option(
            help="Run folder; by default one named by the time. The block engine takes a URL too, "
            "of any file system that fsspec knows, e.g. s3://bucket/run."
        ),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="A TOML file of ExpansionConfig's keys.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A domain folder; without it the embedded IMU world.")
    ] = None,
    domains: Annotated[
        int | None, typer.Option(help="Domains of an embedded world, or at most of the folder.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds of target domains after round 0.")
    ] = None,
    gamma: Annotated[float | None, typer.Option(help="Labelled share of a target domain.")] = None,
    seed: Annotated[int | None, typer.Option(help="Every random stream derives from it.")] = None,
    method: Annotated[str | None, typer.Option(help="The method whose models join.")] = None,
    setting: SettingOption = None,
    engine: Annotated[
        Literal["flower", "block"],
        typer.Option(
            help="flower: each domain a node of Flower's simulation, the deployment's own way of "
            "messages. block: many domains a task, their models trained side by side; for scale. "
            "A resumed run keeps its own."
        ),
    ] = "flower",
    workers: Annotated[int, typer.Option(help="Ray workers; never changes the result.")] = 2,
    ray_address: Annotated[
        str | None, typer.Option(help="A Ray cluster to join (block engine), e.g. host:6379.")
    ] = None,
    accelerator: Annotated[
        str, typer.Option(help="Torch device of the block engine's stacks, e.g. cuda.")
    ] = "cpu",
    stacked: Annotated[
        bool, typer.Option(help="Block engine: train models of one architecture side by side.")
    ] = True,
    track: TrackOption = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with an interrupted run's folder.")
    ] = None,
    join_timeout_s: Annotated[
        float, typer.Option(help="Flower engine: longest wait for all nodes, seconds.")
    ] = 120.0,
    stall_timeout_s: Annotated[
        float, typer.Option(help="Flower engine: longest wait without any answer, seconds.")
    ] = 900.0,
    metrics_port: Annotated[
        int, typer.Option(help="Serve the run's figures to Prometheus on this port of 127.0.0.1.")
    ] = 0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Grow a system: initial domains train, target domains arrive in rounds and are served.

    Exit code 0 only if every domain was served by every method.
    """
    if resume is None:
        config = _configure(config_file, data, domains, rounds, gamma, seed, method, setting)
    # Flower, Ray and torch take seconds to import; what comes before needs none of them.
    from graft_server.run_folder import RunFolder
    from graft_simulation.engines import Engine, EngineSettings

    from graft.api import complete_run

    engine_settings = EngineSettings(
        engine=Engine(engine),
        accelerator=accelerator,
        stacked=stacked,
        workers=workers,
        ray_address=ray_address,
        join_timeout_s=join_timeout_s,
        stall_timeout_s=stall_timeout_s,
    )
    if resume is None:
        folder = RunFolder(open_path(out or f"runs/{datetime.now():%Y%m%d-%H%M%S}"))
    else:
        folder = RunFolder(open_path(resume))
        config = folder.resume()
        engine_settings = engine_settings.as_recorded(folder.read_engine())

    is_begun = False

    def tell(world: "World") -> None:
        nonlocal is_begun
        is_begun = True
        console.print(
            f"{world.task.name}: {len(world.domain_ids)} domains, {config.rounds} rounds, "
            f"methods {', '.join(config.methods)}; run folder {folder.path}",
            highlight=False,
            soft_wrap=True,
        )

    failure: GraftError | None = None
    with _round_progress(config.rounds) as progress, _served_metrics(folder.path, metrics_port):
        try:
            digest = complete_run(
                folder,
                config,
                engine_settings,
                is_new=resume is None,
                track=track or (),
                on_progress=progress,
                begun=tell,
            )
        except GraftError as error:
            if not is_begun:
                raise
            failure = error
    if folder.is_written:
        _show_run(folder.path, output)
    if failure is not None:
        raise failure
    console.print(f"hash {digest}", highlight=False)


@app.command(epilog="Example: graft report runs/first")
def report(
    runs: Annotated[list[str], typer.Argument(help="A run folder, or several to compare.")],
    out: Annotated[
        Path, typer.Option(help="Where the page of several runs goes; one run keeps its own.")
    ] = Path("comparison.html"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Write a run's report.html again and print its table; of several runs, compare them."""
    if len(runs) == 1:
        _show_run(open_path(runs[0]), output)
        return
    from graft.report import comparison_page, read_run

    replace_file(out, comparison_page([read_run(open_path(run)) for run in runs]).encode())
    print_facts({"runs": runs, "page": str(out)}, output)


@app.command(epilog="Example: graft track runs/first --to tensorboard=runs/tensorboard")
def track(
    run: Annotated[str, typer.Argument(help="A run folder.")],
    to: Annotated[
        list[str],
        typer.Option(help="tensorboard=FOLDER, wandb=FOLDER, mlflow=FOLDER or its address."),
    ],
    output: FormatOption = Format.TABLE,
) -> None:
    """Send the figures of a run that is over to trackers, round by round."""
    from graft_server.observability.trackers import open_tracker
    from graft_server.observability.tracking import track_record

    from graft.report import read_run

    record = read_run(open_path(run))
    track_record(record, [open_tracker(text) for text in to])
    rounds = len({row.round_index for row in record.rows})
    print_facts({"run": str(record.run["id"]), "rounds": rounds, "to": list(to)}, output)


def _configure(
    config_file: Path | None,
    data: Path | None,
    domains: int | None,
    rounds: int | None,
    gamma: float | None,
    seed: int | None,
    method: str | None,
    settings: list[str] | None,
) -> ExpansionConfig:
    """The file's configuration (or the defaults), then --set, then the options of their own."""
    return configure(
        read_config(config_file) if config_file else ExpansionConfig(),
        read_settings(settings or ()),
        data=data,
        domains=domains,
        rounds=rounds,
        gamma=gamma,
        seed=seed,
        method=method,
    )


def _show_run(path: AnyPath, output: Format) -> None:
    from graft.report import (
        class_dicts,
        class_times,
        read_run,
        rich_table,
        summarise,
        summary_dict,
        write_report,
    )

    run = read_run(path)
    summaries = summarise(run.rows, run.ledger, run.config)
    page = write_report(path)
    if output is Format.JSON:
        times = class_times(run.rows, run.config.method, run.config.network.deadline_s)
        facts = {"run": dict(run.run), **summary_dict(summaries)}
        print(json.dumps({**facts, "device_classes": class_dicts(times)}, indent=2))
    else:
        # A piped table keeps its columns instead of being cut at 80 characters.
        Console(width=None if sys.stdout.isatty() else 160).print(rich_table(summaries))
    console.print(f"report {page}", highlight=False)


@contextmanager
def _served_metrics(folder: AnyPath, port: int) -> Iterator[None]:
    if port == 0:
        yield
        return
    from graft_server.observability.deployment_metrics import serve_metrics
    from graft_server.observability.run_metrics import RunMetrics
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(RunMetrics(open_watcher(folder)))

    def news(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    with serve_metrics("127.0.0.1", port, registry, news):
        yield


@contextmanager
def _round_progress(rounds: int) -> "Iterator[OnProgress]":
    """A line a phase while it runs: round, phase, answers, payload bytes so far."""
    columns = (
        TextColumn("round {task.fields[round]}/" + str(rounds)),
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[traffic]}"),
        TimeElapsedColumn(),
    )
    from graft.report.formatting import bytes_text

    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("start", total=None, round=0, traffic="")
        latest = ""

        def show(now: "RoundProgress") -> None:
            nonlocal latest
            name = f"{now.round_index} {now.phase}"
            if name != latest:
                latest = name
                bars.reset(bar)
                if not console.is_terminal:
                    console.print(f"round {name}: {now.wanted} asked", highlight=False)
            bars.update(
                bar,
                description=now.phase,
                completed=now.done,
                total=now.wanted,
                round=now.round_index,
                traffic=bytes_text(now.payload_bytes),
            )

        yield show
