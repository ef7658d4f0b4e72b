"""Commands that look at a world or a run: ``graft world``, ``report``, ``track``, ``watch``,
``export``."""

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from typer import Argument, Option

from graft.cli.shared import (
    ConfigOption,
    DataOption,
    Format,
    FormatOption,
    OverwriteOption,
    RunArgument,
    SettingOption,
    add_texts,
    announce,
    file_progress,
    print_facts,
    print_json,
    print_table,
    read_configuration,
)
from graft.core.files import AnyPath, open_path
from graft.core.outputs import check_output_file, write_output
from graft.errors import RunError

_WORLD_MARK = b"Class balance and profile distances"  # in the title of its figure

if TYPE_CHECKING:
    from graft.report.watch import RunWatcher

world_app = typer.Typer(no_args_is_help=True)
export_app = typer.Typer(
    help="Export finished models of a run for other programs.", no_args_is_help=True
)
ModelOption = Annotated[str, Option(help="Domain of the model, or first 8 digits of its id.")]


@world_app.callback()
def world() -> None:
    """Describe a world of domains."""


@world_app.command(epilog="Example: graft world describe --data my-folder --out world.svg")
def describe(
    data: DataOption = None,
    out: Annotated[Path, Option(help="SVG file to write.")] = Path("world.svg"),
    most: Annotated[int, Option(min=2, help="Largest number of domains; a sample of more.")] = 100,
    config_file: ConfigOption = None,
    setting: SettingOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the domains of a world, their class balance and the distances of their profiles.

    Profiles are those of coarse selection, over the training rows.
    """
    # Torch takes seconds to import; --help and a mistyped option need none of it.
    from graft.data.worlds import open_world
    from graft.report.figures.world import world_figure
    from graft.report.world import describe_world, world_facts

    check_output_file(out, mark=_WORLD_MARK)
    changes = {"world.max_domains": most}
    config = read_configuration(config_file, setting, data=data, changes=changes)
    with file_progress() as progress:
        described = describe_world(open_world(config.world, config.seed), config, progress)
    write_output(out, world_figure(described).encode(), mark=_WORLD_MARK)
    facts = world_facts(described)
    if output is Format.JSON:
        print_json(facts | {"picture": str(out)})
    else:
        table = Table(title=f"{facts['name']}: {len(facts['domains'])} domains, "
                      f"{facts['persons']} persons, {facts['rows']} rows")  # fmt: skip
        for heading in ("Domain", "Rows", "Nearest", "Distance", *described.task.classes):
            table.add_column(
                heading, justify="left" if heading in ("Domain", "Nearest") else "right"
            )
        for each in facts["domains"]:
            distance = f"{each['distance']:.2f}"
            add_texts(
                table, each["domain"], each["rows"], each["nearest"], distance, *each["classes"]
            )
        print_table(table)
    for domain_id, reason in described.unusable:
        announce(f"left out: {domain_id}: {reason}")
    announce(f"picture {out}")


def report(
    runs: Annotated[list[str], Argument(help="Run folder, or several to compare.")],
    out: Annotated[
        Path, Option(help="Page of several runs; the page of one run is in its folder.")
    ] = Path("comparison.html"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Write the report.html of a run and print its table, or compare several runs on one page."""
    if len(runs) == 1:
        show_run(open_path(runs[0]), output)
        return
    from graft.report.page.comparison import comparison_page
    from graft.report.run import read_run

    sources = [open_path(run) for run in runs]
    check_output_file(out, sources)
    write_output(out, comparison_page([*map(read_run, sources)]).encode(), sources=sources)
    print_facts({"runs": runs, "page": str(out)}, output)


def track(
    run: RunArgument,
    to: Annotated[
        list[str],
        Option(
            help="tensorboard=FOLDER, wandb=FOLDER, mlflow=FOLDER or mlflow=ADDRESS; repeatable."
        ),
    ],
    output: FormatOption = Format.TABLE,
) -> None:
    """Send the figures of a finished run to trackers, round by round."""
    from graft_server.observability.trackers import open_tracker, track_record

    from graft.report.run import read_run

    record = read_run(open_path(run))
    track_record(record, [open_tracker(text) for text in to])
    rounds = len({row.round_index for row in record.rows})
    print_facts({"run": str(record.run["id"]), "rounds": rounds, "to": to}, output)


def show_run(path: AnyPath, output: Format) -> None:
    """Write a run's page and print its summary."""
    from graft.report import growth
    from graft.report.page.report import write_report
    from graft.report.run import read_run
    from graft.report.summary import class_times, summarise
    from graft.report.tables import class_dicts, filled, rich_table, summary_dict

    run = read_run(path)
    summaries = summarise(run.rows, run.ledger, run.config)
    grown = growth.summarise_growth(run.rows, run.ledger)
    page = write_report(path)
    if output is Format.JSON:
        times = class_times(run.rows, run.config.method, run.config.network.deadline_s)
        facts = {"run": dict(run.run), **summary_dict(summaries)}
        facts |= {"growth": growth.growth_dicts(grown)} if grown else {}
        print_json({**facts, "device_classes": class_dicts(times)})
    else:
        print_table(rich_table(summaries))
        if grown:
            cells = [(growth.growth_cells(each), "") for each in grown]
            table = Table(title="Task growth", caption=growth.NOTE, caption_justify="left")
            print_table(filled(table, growth.HEADINGS, cells))
    announce(f"report {page}")


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


@export_app.command(
    epilog="Example: graft export onnx runs/first --model user-000003 --out user.onnx"
)
def onnx(
    run: RunArgument,
    model: ModelOption,
    out: Annotated[Path, Option(help="ONNX file to write.")] = Path("model.onnx"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Write a model as ONNX: input x, outputs logits and probabilities, any batch size.

    The file is checked with onnxruntime and written only if its outputs are within 1e-5 of torch's.
    """
    from graft_server.export import find_model, write_onnx

    check_output_file(out, [open_path(run)], mark=b"model_id")
    found = find_model(open_path(run), model)
    difference = write_onnx(found, out)
    facts = {"file": str(out), "bytes": out.stat().st_size, **_model_facts(found)}
    print_facts({**facts, "difference": difference}, output)


@export_app.command(epilog="Example: graft export hub runs/first --model user-000003 --out user")
def hub(
    run: RunArgument,
    model: ModelOption,
    out: Annotated[Path, Option(help="Folder to write.")] = Path("model"),
    licence: Annotated[str | None, Option(help="Licence. Default: that of the data.")] = None,
    overwrite: OverwriteOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write a model as a folder in the layout of the Hugging Face hub; nothing is uploaded.

    The folder holds model.safetensors, config.json and a model card with lineage, licence and
    metrics. The lineage names the domains of the sources.
    """
    from graft_server.export import find_model, write_model_folder

    found = find_model(open_path(run), model)
    write_model_folder(found, out, licence=licence, overwrite=overwrite, sources=[open_path(run)])
    facts = {"folder": str(out), **_model_facts(found), "lineage": len(found.lineage)}
    print_facts({**facts, "licence": licence or found.data_licence}, output)


def _model_facts(found: Any) -> dict[str, str]:
    card = found.card
    return {"domain": card.domain_id, "model": card.model_id, "architecture": card.architecture}
