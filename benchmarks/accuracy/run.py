"""How good are the newcomers' models on real people's data?

    python benchmarks/accuracy/run.py --data hapt=FOLDER --data myo=FOLDER --seeds 3

FOLDER is what ``graft data prepare`` wrote. Every run is an ordinary ``graft simulate`` with the
committed configuration; finished runs are kept under --runs and not run again.
"""

import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from scipy.stats import t as student

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary

from graft.ledger import is_upload, read_ledger
from graft.results import ResultRow, read_results

HERE = Path(__file__).resolve().parent
MAIN = "hat"
COMPARISONS = (
    "label-only", "all-labels", "best-source", "finetuned-any", "finetuned-same",
    "average-kd-selected", "average-kd-all",
)  # fmt: skip
COMMAND = "python benchmarks/accuracy/run.py --data {name}=FOLDER --seeds {seeds} --gamma {gamma}"
console = Console(stderr=True)


def main(
    data: Annotated[list[str], typer.Option(help="NAME=FOLDER of a prepared set; repeatable.")],
    seeds: Annotated[int, typer.Option(help="Seeds 0 to SEEDS - 1.")] = 3,
    gamma: Annotated[float, typer.Option(help="Labelled share of a newcomer.")] = 0.1,
    runs: Annotated[Path, typer.Option(help="Where the run folders go.")] = Path("runs/accuracy"),
    workers: Annotated[int, typer.Option(help="Ray actors a run.")] = 2,
) -> None:
    """Run every set and seed, then write results/summary.json and a table a set."""
    for item in data:
        name, equals, folder = item.partition("=")
        if not equals:
            raise typer.BadParameter(f"--data {item}: wanted NAME=FOLDER")
        rows, bytes_down = [], defaultdict(int)
        for seed in range(seeds):
            run = runs / f"{name}-gamma{gamma:g}-seed{seed}"
            run_once(run, Path(folder), seed, gamma, workers)
            rows += [(seed, row) for row in read_results(run / "results.parquet")]
            for entry in read_ledger(run / "ledger.parquet"):
                if not is_upload(entry):
                    bytes_down[entry.method] += entry.payload_bytes
        report(name, gamma, seeds, rows, bytes_down)


def run_once(run: Path, folder: Path, seed: int, gamma: float, workers: int) -> None:
    """One ``graft simulate``, gone on with where an earlier one was interrupted."""
    if (run / "run.toml").exists():
        status = tomllib.loads((run / "run.toml").read_text("utf-8"))["run"]["status"]
        if status == "complete":
            return
        arguments = ["--resume", str(run)]
    else:
        listed = ", ".join(f'"{name}"' for name in COMPARISONS)
        arguments = [
            "--data", str(folder), "--seed", str(seed), "--gamma", str(gamma),
            "--set", f"comparisons=[{listed}]", "--out", str(run),
        ]  # fmt: skip
    console.print(f"{run.name}", highlight=False)
    graft = Path(sys.executable).with_name("graft")
    subprocess.run([graft, "simulate", *arguments, "--workers", str(workers)], check=True)


def report(
    name: str,
    gamma: float,
    seeds: int,
    rows: list[tuple[int, ResultRow]],
    bytes_down: dict[str, int],
) -> None:
    """The set's table and figures; pairs are (seed, domain)."""
    accuracy: dict[str, dict[tuple[int, str], float]] = defaultdict(dict)
    macro_f1: dict[str, list[float]] = defaultdict(list)
    for seed, row in rows:
        if row.round_index and row.accuracy is not None:
            accuracy[row.method][seed, row.domain_id] = row.accuracy
            macro_f1[row.method].append(row.macro_f1 or 0.0)
    lines = [
        f"# {name}, gamma {gamma:g}, {seeds} seeds",
        "",
        "| method | accuracy | worst | HaT-style gains | 95 % interval | macro-F1 | MB down |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    figures = {}
    command = COMMAND.format(name=name, seeds=seeds, gamma=gamma)
    for method in (MAIN, *COMPARISONS):
        scores = accuracy[method]
        pairs = sorted(set(scores) & set(accuracy[MAIN]))
        gains = np.array([accuracy[MAIN][pair] - scores[pair] for pair in pairs])
        half = student.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
        mean = float(np.mean(list(scores.values())))
        lines.append(
            f"| {method} | {mean:.1%} | {min(scores.values()):.1%} | {100 * gains.mean():+.1f} "
            f"| {100 * (gains.mean() - half):+.1f} to {100 * (gains.mean() + half):+.1f} "
            f"| {np.mean(macro_f1[method]):.1%} | {bytes_down[method] / 1e6:.1f} |"
        )
        label = f"{name}/gamma={gamma:g}/{method}"
        figures[f"{label}/accuracy"] = figure(mean, "share", None, command, range(seeds))
        if method != MAIN:
            target = {"label-only": ">= 8" if name == "myo" else None, "finetuned-same": "> 0"}
            figures[f"{label}/hat_gain"] = figure(
                100 * float(gains.mean()), "points", target.get(method), command, range(seeds)
            )
    folder = HERE / "results"
    write_summary(folder, figures)
    (folder / f"{name}-gamma{gamma:g}.md").write_text("\n".join(lines) + "\n", "utf-8")
    console.print("\n".join(lines), highlight=False)


if __name__ == "__main__":
    typer.run(main)
