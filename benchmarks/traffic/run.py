"""What does a target domain's model cost beside average distillation from all sources?

    python benchmarks/traffic/run.py

The synthetic world with 30 and with 1,000 sources: payload bytes, both ways, of the main method
as a share of shipping every model, and CPU seconds of the fit, both methods in one run on the
same target domains. Bytes do not depend on how well a source is trained: at 1,000 it takes two
steps.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary

from graft.bench.rows import BenchmarkRow, read_benchmark_rows

HERE = Path(__file__).resolve().parent
MAIN, SHIP_ALL = "graft", "average-kd-all"
COMMAND = "python benchmarks/traffic/run.py"
console = Console(stderr=True)


def main(
    work: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/traffic"),
    workers: Annotated[int, typer.Option(help="Processes; one measures time best.")] = 1,
) -> None:
    """Run both sizes, then write results/summary.json."""
    few = measure(work / "30", 75, ("--seeds", "2", "--targets", "6"), workers)
    many_options = ("--seeds", "1", "--targets", "2", "--set", "training.max_steps=2")
    many = measure(work / "1000", 2500, many_options, workers)
    figures = {
        "bytes/30-sources": figure(share(few, traffic), "share", "<= 0.20", COMMAND, range(2)),
        "bytes/1000-sources": figure(share(many, traffic), "share", "<= 0.02", COMMAND, range(1)),
        "device-time/30-sources": figure(
            share(few, lambda row: row.device_s or 0.0), "share", "<= 0.50", COMMAND, range(2)
        ),
    }
    write_summary(HERE / "results", figures)
    for name, entry in figures.items():
        console.print(f"{name}: {entry['value']:.4f}, target {entry['target']}", highlight=False)


def measure(
    folder: Path, domains: int, options: tuple[str, ...], workers: int
) -> list[BenchmarkRow]:
    """The rows of both methods on one world; what is finished is not run again."""
    graft = Path(sys.executable).with_name("graft")
    subprocess.run(
        [
            graft, "bench", "accuracy", "--data", "imu", "--gamma", "0.1", *options,
            "--set", f"world.domains={domains}", "--methods", f"{MAIN},{SHIP_ALL},label-only",
            "--out", folder / "results", "--work", folder / "work", "--workers", str(workers),
        ],
        check=True,
    )  # fmt: skip
    return read_benchmark_rows(folder / "results" / "rows.parquet")


def traffic(row: BenchmarkRow) -> float:
    """Payload bytes both ways."""
    return float(row.bytes_down + row.bytes_up)


def share(rows: list[BenchmarkRow], cost: Callable[[BenchmarkRow], float]) -> float:
    """Mean cost of the main method over that of shipping all, on the same target domains."""
    means = [
        np.mean([cost(row) for row in rows if row.method == name]) for name in (MAIN, SHIP_ALL)
    ]
    return float(means[0] / means[1])


if __name__ == "__main__":
    typer.run(main)
