"""``graft report`` and ``graft track``: what a finished run shows, here or in a tracker."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from graft.cli.shared import (
    Format,
    FormatOption,
    RunArgument,
    announce,
    print_facts,
    print_json,
    print_table,
)
from graft.core.files import AnyPath, open_path, replace_file


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

    replace_file(out, comparison_page([read_run(open_path(run)) for run in runs]).encode())
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
    from graft.report.page.report import write_report
    from graft.report.run import read_run
    from graft.report.summary import class_times, summarise
    from graft.report.tables import class_dicts, rich_table, summary_dict

    run = read_run(path)
    summaries = summarise(run.rows, run.ledger, run.config)
    page = write_report(path)
    if output is Format.JSON:
        times = class_times(run.rows, run.config.method, run.config.network.deadline_s)
        facts = {"run": dict(run.run), **summary_dict(summaries)}
        print_json({**facts, "device_classes": class_dicts(times)})
    else:
        print_table(rich_table(summaries))
    announce(f"report {page}")
