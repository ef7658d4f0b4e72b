"""Does the simulated clock say what a device takes?

    python benchmarks/time/run.py

This machine is measured by ``graft deploy calibrate`` and then runs ``graft simulate`` with every
device of that class, several times in turn. Simulated compute seconds are set against the same
run's measured ones (CPU time of one thread), in all and by method. Initial domains are left out of
the sum and told apart: the first training task of a process pays for loading, which is no work of a
device.
"""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary

from graft.core.results import ResultRow
from graft.core.tables import read_results
from graft.methods import INITIAL

HERE = Path(__file__).resolve().parent
COMMAND = "python benchmarks/time/run.py"
console = Console(stderr=True)


def main(
    work: Annotated[Path, typer.Option(help="Where classes and runs go.")] = Path("runs/time"),
    runs: Annotated[int, typer.Option(min=1, help="Runs, each with a measurement before.")] = 3,
    domains: Annotated[int, typer.Option(help="Domains of the synthetic world.")] = 8,
) -> None:
    """Measure and run in turn, then write results/summary.json."""
    work.mkdir(parents=True, exist_ok=True)
    measured: dict[str, float] = defaultdict(float)
    simulated: dict[str, float] = defaultdict(float)
    totals, rows_reported = [], 0
    for number in range(runs):
        classes = work / f"machine-{number}.toml"
        folder = work / f"run-{number}"
        if not (folder / "results.parquet").exists():
            graft("deploy", "calibrate", "--out", classes)
            graft(
                "simulate", "--out", folder, "--domains", domains, "--rounds", 1, "--seed", number,
                "--workers", 1, "--set", f"devices.classes_file={classes}",
            )  # fmt: skip
        rows = [row for row in read_results(folder / "results.parquet") if row.error is None]
        rows_reported += len(rows)
        for row in rows:
            measured[row.method] += row.compute_s or 0.0
            simulated[row.method] += row.simulated_compute_s or 0.0
        totals.append(ratio([row for row in rows if row.method != INITIAL]))
    targets = [name for name in measured if name != INITIAL]
    measured_s = sum(measured[name] for name in targets)
    figures = {
        "simulated/measured": figure(
            sum(simulated[name] for name in targets) / measured_s,
            "ratio", "0.85 to 1.15", COMMAND, range(runs),
        ),
        "worst-run": figure(
            max(totals, key=lambda each: abs(np.log(each))), "ratio", None, COMMAND, range(runs)
        ),
        "measured-compute": figure(measured_s, "s", None, COMMAND, range(runs)),
        "lessons": figure(rows_reported, "lessons", None, COMMAND, range(runs)),
    }  # fmt: skip
    figures |= {
        f"simulated/measured/{name}": figure(
            simulated[name] / measured[name], "ratio", None, COMMAND, range(runs)
        )
        for name in sorted(measured)
    }
    write_summary(HERE / "results", figures)
    for name, entry in figures.items():
        console.print(f"{name}: {entry['value']:.3f} {entry['unit']}", highlight=False)


def graft(*arguments: object) -> None:
    """Run the command, or fail with it."""
    command = Path(sys.executable).with_name("graft")
    subprocess.run([command, *map(str, arguments)], check=True)


def ratio(rows: list[ResultRow]) -> float:
    """Simulated over measured compute seconds of one run."""
    return float(
        np.sum([row.simulated_compute_s for row in rows]) / np.sum([row.compute_s for row in rows])
    )


if __name__ == "__main__":
    typer.run(main)
