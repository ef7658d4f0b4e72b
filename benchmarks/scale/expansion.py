"""A large expansion end to end, and what a domain costs as the system grows.

python benchmarks/scale/expansion.py --sources 2000 --targets 200
python benchmarks/scale/expansion.py --flat 500,4000 --steps 300
"""

import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary

from graft.core.ledger import is_upload, total_bytes
from graft.core.outputs import fresh_folder
from graft.core.tables import read_ledger, read_results

HERE = Path(__file__).resolve().parent
_FEW = (20, 3)  # sources, target domains


def main(
    sources: Annotated[int, typer.Option(help="Initial domains.")] = 2000,
    targets: Annotated[int, typer.Option(help="Target domains, over three rounds.")] = 200,
    flat: Annotated[
        str, typer.Option(help="Instead: numbers of domains, one in eleven a target domain.")
    ] = "",
    steps: Annotated[int, typer.Option(help="Training steps a model.")] = 300,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 2,
    runs: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs/scale"),
) -> None:
    """Initial domains train, HaT-style serves targets in three rounds, by the block engine."""
    if not flat:
        command = (
            f"python benchmarks/scale/expansion.py --sources {sources} --targets {targets} "
            f"--steps {steps}"
        )
        name = f"expansion/{sources}-sources-{targets}-newcomers"
        write_summary(
            HERE / "results", measure(name, sources, targets, steps, workers, runs, command)
        )
        return
    command = f"python benchmarks/scale/expansion.py --flat {flat} --steps {steps}"
    figures: dict[str, Any] = {}
    cost_s = {}
    # A run of next to nobody takes what every run takes, imports, workers, the report, and its own
    # few domains: a larger one is measured by what it has more of both.
    name = f"flat/{sum(_FEW)}-domains"
    figures |= measure(name, *_FEW, steps, workers, runs, command)
    least_s = figures[f"{name}/time"]["value"]
    for domains in map(int, flat.split(",")):
        served = round(domains / 11)
        name = f"flat/{domains}-domains"
        found = measure(name, domains - served, served, steps, workers, runs, command)
        cost_s[domains] = (found[f"{name}/time"]["value"] - least_s) / (domains - sum(_FEW))
        found[f"{name}/time-a-domain"] = figure(
            1e3 * cost_s[domains], f"ms, a run of {sum(_FEW)} domains taken off", None, command, [0]
        )
        figures |= found
    spread = max(cost_s.values()) / min(cost_s.values()) - 1
    figures["flat/spread"] = figure(
        100 * spread,
        f"% between the dearest and cheapest domain of {flat}",
        "at most 15",
        command,
        [0],
    )
    print(f"flat: {100 * spread:.1f} % apart; seconds a domain: {cost_s}")
    write_summary(HERE / "results", figures)


def measure(
    name: str, sources: int, targets: int, steps: int, workers: int, runs: Path, command: str
) -> dict[str, dict[str, object]]:
    """One run; its folder is kept until the next."""
    out = runs / name.replace("/", "-")
    fresh_folder(out)
    started_s = time.monotonic()
    subprocess.run(
        [
            Path(sys.executable).with_name("graft"), "simulate", "--engine", "block",
            "--domains", str(sources + targets), "--rounds", "3", "--method", "hat",
            "--set", f"split.initial_fraction={sources / (sources + targets)}",
            "--set", f"training.max_steps={steps}", "--set", "comparisons=[]",
            "--workers", str(workers), "--out", str(out),
        ],
        check=True,
    )  # fmt: skip
    elapsed_s = time.monotonic() - started_s
    facts = tomllib.loads((out / "run.toml").read_text("utf-8"))["run"]
    entries = read_ledger(out / "ledger.parquet")
    rows = [row for row in read_results(out / "results.parquet") if row.method == "hat"]
    assert len(rows) == targets, f"got {len(rows)} target domains served, wanted {targets}"
    up = total_bytes(entries, is_upload)
    accuracy = sum(row.accuracy or 0.0 for row in rows) / len(rows)
    figures = {
        "time": (elapsed_s, "s"),
        "time-a-domain": (1e3 * elapsed_s / (sources + targets), "ms"),
        "peak_memory": (facts["peak_memory_bytes"] / 1e9, "GB (PSS of all processes)"),
        "payload-up": (up / 1e6, "MB"),
        "payload-down": ((total_bytes(entries) - up) / 1e6, "MB"),
        "accuracy": (100 * accuracy, "% mean over target domains"),
    }
    for key, (value, unit) in figures.items():
        print(f"{name}/{key}: {value:.4g} {unit}", flush=True)
    return {
        f"{name}/{key}": figure(value, unit, None, command, [0])
        for key, (value, unit) in figures.items()
    }


if __name__ == "__main__":
    typer.run(main)
