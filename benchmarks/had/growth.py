"""What a growth round does to the old output: HAPT's basic activities, then its transitions.

    python benchmarks/had/growth.py --hapt FOLDER --seeds 3

The whole system runs (``graft.simulate``): people know six activities until a round in which
half of those in the system come back with the postural transitions. A finished seed is kept under
--work and not run again.
"""

import sys
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary

import graft
from graft.core.results import GROW, ResultRow
from graft.lifelong.growth import METHODS
from graft.report.formatting import display_name
from graft.report.run import RunRecord, payload_by, read_run
from graft.report.summary import mean_interval

HERE = Path(__file__).resolve().parent
BASIC = 6  # HAPT's first classes; the others are transitions
COMMAND = "python benchmarks/had/growth.py --hapt FOLDER --seeds {seeds}"
GRID_SEED = 100
GRID = {"had": (0.3, 1.0, 3.0, 10.0, 30.0), "lwf": (0.1, 0.3, 1.0, 3.0, 10.0),
        "ewc": (1e2, 1e3, 1e4, 1e5)}  # fmt: skip
console = Console(stderr=True)


def main(
    hapt: Annotated[Path, typer.Option(help="Domain folder of HAPT.")],
    seeds: Annotated[int, typer.Option(help="Seeds 0 to SEEDS - 1.")] = 3,
    work: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs/growth"),
    grid: Annotated[bool, typer.Option(help="Try strengths on one more seed.")] = False,
) -> None:
    """Run every seed, then write results/growth.md and results/growth/summary.json."""
    if grid:
        try_strengths(hapt, work)
        return
    runs = [run_once(hapt, work / f"seed{seed}", seed) for seed in range(seeds)]
    report(runs, seeds)


def run_once(hapt: Path, folder: Path, seed: int, **growth: Any) -> RunRecord:
    """A run of one seed, from an earlier call where there is one."""
    if not (folder / "results.parquet").exists():
        from graft.data.folder import FolderWorld

        growing = list(FolderWorld(hapt).task.classes[BASIC:])
        settings = {
            "growth.classes": growing,
            "growth.comparisons": [way for way in METHODS if way != "had"],
            **{f"growth.{name}": value for name, value in growth.items()},
        }
        graft.simulate(
            hapt, comparisons=["label-only"], rounds=3, seed=seed, settings=settings,
            engine="block", workers=1, out=folder,
        )  # fmt: skip
    return read_run(folder)


def try_strengths(hapt: Path, work: Path) -> None:
    """Print every way's old and new accuracy by strength on ``GRID_SEED``."""
    for way, strengths in GRID.items():
        for strength in strengths:
            folder = work / f"grid-{way}-{strength:g}"
            run = run_once(hapt, folder, GRID_SEED, method=way, comparisons=[], strength=strength)
            rows = [row for row in run.rows if row.is_growth]
            console.print(
                f"{way} {strength:g}: old {100 * fmean(changes(rows)):+.1f} points, new "
                f"{fmean(row.new_accuracy or 0 for row in rows):.3f}, all "
                f"{fmean(row.accuracy or 0 for row in rows):.3f}",
                highlight=False,
            )


def changes(rows: list[ResultRow]) -> list[float]:
    """How much the old output's accuracy rose, a domain a value."""
    return [(row.old_accuracy or 0) - (row.old_accuracy_before or 0) for row in rows]


def report(runs: list[RunRecord], seeds: int) -> None:
    """The table and the figures: means over all domains of all seeds that came back."""
    command, figures = COMMAND.format(seeds=seeds), {}
    lines = [
        f"# Task growth on HAPT, {seeds} seeds",
        "",
        "Basic activities, then postural transitions; means over the people who came back. Old",
        "output: test rows of the basic activities, predicted among all classes that the model",
        "knows. Bytes are payload, a domain.",
        "",
        "| way | domains | old before | old after | change, points (95 %) | new | all classes "
        "| down | up |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for way in METHODS:
        rows = [row for run in runs for row in run.rows if row.method == GROW + way]
        moved = changes(rows)
        low, high = mean_interval(moved) or (float("nan"), float("nan"))
        means = {
            "old_before": fmean(row.old_accuracy_before or 0 for row in rows),
            "old_after": fmean(row.old_accuracy or 0 for row in rows),
            "new": fmean(row.new_accuracy or 0 for row in rows if row.new_accuracy is not None),
            "all": fmean(row.accuracy or 0 for row in rows),
        }
        spent = [payload_by(run.ledger, "method", "up") for run in runs]
        down, up = (
            sum(each.get((GROW + way, is_up), 0) for each in spent) / len(rows)
            for is_up in (False, True)
        )
        lines.append(
            f"| {display_name(GROW + way)} | {len(rows)} | {means['old_before']:.1%} | "
            f"{means['old_after']:.1%} | {100 * fmean(moved):+.1f} ({100 * low:+.1f} to "
            f"{100 * high:+.1f}) | {means['new']:.1%} | {means['all']:.1%} | {down / 1e3:.0f} kB | "
            f"{up / 1e3:.1f} kB |"
        )
        target = "-2 or more" if way == "had" else None
        figures[f"hapt/{way}/old_change"] = figure(
            100 * fmean(moved), "points", target, command, range(seeds)
        )
        for name, value in means.items():
            figures[f"hapt/{way}/{name}"] = figure(value, "share", None, command, range(seeds))
        figures[f"hapt/{way}/payload_down"] = figure(
            down, "bytes a domain", None, command, range(seeds)
        )
    write_summary(HERE / "results" / "growth", figures)
    (HERE / "results" / "growth.md").write_text("\n".join(lines) + "\n", "utf-8")
    console.print("\n".join(lines), highlight=False)


if __name__ == "__main__":
    typer.run(main)
