"""``graft bench``: compute the benchmark matrix and write its report."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from graft.cli.shared import (
    ConfigOption,
    Format,
    FormatOption,
    SettingOption,
    announce,
    console,
    print_json,
    print_table,
    progress_bars,
    read_configuration,
    split_names,
)
from graft.core.config import ExpansionConfig

if TYPE_CHECKING:
    from graft.bench.rows import BenchmarkRow

bench_app = typer.Typer(help="Benchmarks: how good, at what cost.", no_args_is_help=True)
GAMMAS = (0.01, 0.05, 0.1, 0.2)
QUICK_METHODS = (
    "label-only", "all-labels", "finetuned-same", "average-kd-selected", "average-kd-all",
)  # fmt: skip


@bench_app.callback()
def bench() -> None:
    """Benchmarks: how good, at what cost."""


@bench_app.command(
    epilog="Example: graft bench accuracy --data imu --data hapt=hapt --gamma 0.1 --seeds 3"
)
def accuracy(
    data: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER of a prepared set, or imu, or digits; repeatable."),
    ] = None,
    gamma: Annotated[
        list[float] | None, typer.Option(help="Labelled share of a target domain; repeatable.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds 0 to SEEDS - 1.")] = None,
    targets: Annotated[
        int | None, typer.Option(help="How many target domains of each seed are served.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Methods to run, comma-separated; by default the main one and others."),
    ] = None,
    main: Annotated[str | None, typer.Option(help="The method that gains are of.")] = None,
    sources: Annotated[
        str | None, typer.Option(help="Values of N_p for the methods that select, e.g. 1,3,5,8.")
    ] = None,
    config_file: ConfigOption = None,
    setting: SettingOption = None,
    quick: Annotated[
        bool, typer.Option(help="A small part of the matrix, within ten minutes on two cores.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option(help="Compute nothing; write the report of the rows there are.")
    ] = False,
    redo: Annotated[str, typer.Option(help="Methods whose rows are computed again, or all.")] = "",
    workers: Annotated[int, typer.Option(help="Processes; never changes the result.")] = 2,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Train in C where it can; rows lack device time.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for rows, tables and figures.")] = Path(
        "benchmarks/accuracy/results"
    ),
    work: Annotated[Path, typer.Option(help="Folder for the initial domains' models.")] = Path(
        "runs/accuracy"
    ),
    output: FormatOption = Format.TABLE,
) -> None:
    """How good are target domains' models, by every method, on every set, and what do they cost?

    Rows that are there already are kept, so that an interrupted run goes on and methods may be
    added later. Exit code 0 only if every row that was asked for has its figures.
    """
    # Torch takes seconds to import; --help and a mistyped option need none of it.
    from graft.bench import (
        ROWS,
        MatrixPlan,
        MatrixSettings,
        compute_matrix,
        default_methods,
        name_world,
    )
    from graft.bench.rows import read_benchmark_rows
    from graft.methods import methods_by_name
    from graft.report.formatting import count_text

    main = main or ("graft" if "graft" in methods_by_name() else "hat")
    config = read_configuration(config_file, setting)
    if report_only:
        rows = read_benchmark_rows(out / ROWS)
        _show_matrix(rows, rows, main, config, out, output)
        return
    chosen = (main, *QUICK_METHODS) if quick else default_methods(main)
    plan = MatrixPlan(
        worlds=dict(name_world(text, config.world) for text in data or ("imu", "digits")),
        config=config,
        methods=tuple(dict.fromkeys(split_names(methods) if methods else chosen)),
        gammas=tuple(gamma or ((0.1,) if quick else GAMMAS)),
        seeds=tuple(range(seeds or (1 if quick else 5))),
        targets=targets or (4 if quick else 12),
        sources=tuple(int(value) for value in split_names(sources)) if sources else None,
        work=work,
        compiled=compiled,
    )
    announce(
        f"{'a quick part of the matrix: ' if quick else ''}{', '.join(plan.worlds)}; "
        f"{count_text(len(plan.methods), 'method')}, {count_text(len(plan.gammas), 'gamma')}, "
        f"{count_text(len(plan.seeds), 'seed')}, {count_text(plan.targets, 'target')} each"
    )
    with _row_progress() as progress:
        rows = compute_matrix(
            plan,
            MatrixSettings(out=out, workers=workers, redo=split_names(redo), progress=progress),
        )
    asked = plan.row_keys()
    mine = [row for row in rows if row.key in asked]
    _show_matrix(rows, mine, main, config, out, output)
    if any(row.error for row in mine):
        raise typer.Exit(1)


@bench_app.command(
    epilog="Example: graft bench budget --data imu --value 30000 --value 120000 --value 480000"
)
def budget(
    data: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER of a prepared set, or an embedded world; repeatable."),
    ] = None,
    limit: Annotated[
        Literal["down_bytes", "up_bytes", "device_s", "memory_bytes"],
        typer.Option(help="The key of the section budget that is swept."),
    ] = "down_bytes",
    value: Annotated[list[float] | None, typer.Option(help="A limit; repeatable.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 to SEEDS - 1.")] = 1,
    config_file: ConfigOption = None,
    setting: SettingOption = None,
    workers: Annotated[int, typer.Option(help="Processes; never changes the result.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path(
        "runs/budget/results"
    ),
    work: Annotated[Path, typer.Option(help="Folder for runs; finished ones are kept.")] = Path(
        "runs/budget"
    ),
    output: FormatOption = Format.TABLE,
) -> None:
    """How good are target domains' models within a budget of bytes, seconds or memory?

    graft's method, the same with sources at random, and HaT-style fusion are each planned within
    every value. Exit code 0 only if no target domain used more than its budget.
    """
    from graft_server.run_folder import RunFolder
    from graft_simulation.engines import Engine, EngineSettings

    from graft.api import complete_run
    from graft.bench import name_world
    from graft.bench.budget import budget_grid, sweep_budget, write_budget_report

    def simulate(config: ExpansionConfig, folder: Path) -> None:
        engine = EngineSettings(engine=Engine.BLOCK, workers=workers)
        complete_run(RunFolder(folder), config, engine, is_new=True)

    config = read_configuration(config_file, setting)
    points = sweep_budget(
        dict(name_world(text, config.world) for text in data or ("imu",)),
        config,
        limit,
        value or (30_000, 60_000, 120_000, 240_000, 480_000),
        seeds,
        simulate=simulate,
        work=work,
        progress=announce,
    )
    command = f"graft bench budget --limit {limit} --seeds {seeds}"
    path = write_budget_report(points, out, command)
    above = sum(point.above for point in points)
    if output is Format.JSON:
        print_json({"above": above, "points": [asdict(point) for point in points]})
    else:
        print_table(budget_grid(points).rich())
    announce(f"{above} targets above their budget; figures {path.parent}")
    if above:
        raise typer.Exit(1)


def _show_matrix(
    rows: "Sequence[BenchmarkRow]",
    asked: "Sequence[BenchmarkRow]",
    main: str,
    config: ExpansionConfig,
    out: Path,
    output: Format,
) -> None:
    """Write the report of all rows and print its overview; failures of those ``asked`` for."""
    from graft.bench.report import (
        analyse_matrix,
        overview_grids,
        summary_figures,
        write_matrix_report,
    )

    matrix = analyse_matrix(rows, main=main, num_sources=config.selection.num_sources)
    page = write_matrix_report(matrix, out)
    failed = [
        {**row.key._asdict(), "error": row.error, "message": row.error_message}
        for row in asked
        if row.error
    ]
    if output is Format.JSON:
        facts = {"rows": len(rows), "asked": len(asked), "failed": failed}
        print_json({**facts, "figures": summary_figures(matrix)})
    else:
        for grid in overview_grids(matrix):
            print_table(grid.rich())
    for failure in failed:
        announce(", ".join(f"{key} {value}" for key, value in failure.items()))
    announce(f"report {page}")


@contextmanager
def _row_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar of rows done and wanted, with the time that is left by the pace so far."""
    from graft.report.formatting import seconds_text

    started_s = time.monotonic()
    first: int | None = None
    with progress_bars("{task.description}", "{task.fields[left]}") as bars:
        bar = bars.add_task("rows", total=None, left="")

        def show(what: str, done: int, wanted: int) -> None:
            nonlocal first
            first = done if first is None else first
            fresh = done - first
            left_s = (time.monotonic() - started_s) / fresh * (wanted - done) if fresh else None
            left = "" if left_s is None else f"{seconds_text(left_s)} left"
            bars.update(bar, description=what or "rows", completed=done, total=wanted, left=left)
            if not console.is_terminal:
                announce(f"{done} of {wanted} rows  {left}  {what}")

        yield show
