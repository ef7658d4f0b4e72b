"""A small run from command to report, beside another commit of this repository.

python benchmarks/scale/startup.py --repeats 3
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary

from graft.core.outputs import fresh_folder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = (".", "server", "client", "simulation")
CODE = "import sys; from graft_origin import main; sys.argv[0] = 'graft'; main()"
TARGET_S = {"block": 10, "flower": 15}


def main(
    against: Annotated[str, typer.Option(help="Commit to compare with.")] = "e3804b6",
    domains: Annotated[int, typer.Option(help="Domains of the run.")] = 10,
    steps: Annotated[int, typer.Option(help="Training steps a model.")] = 20,
    repeats: Annotated[int, typer.Option(help="Alternating measurements.")] = 3,
    engine: Annotated[list[str] | None, typer.Option(help="Engines; both if left out.")] = None,
    runs: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs/scale"),
) -> None:
    """Both commits in turn, each run a command of its own; a ratio is within one repeat."""
    other = (runs / f"at-{against}").absolute()
    if not other.exists():
        git = ["git", "-C", str(ROOT), "worktree", "add", "--detach", str(other), against]
        subprocess.run(git, check=True, capture_output=True)
    command = f"python benchmarks/scale/startup.py --repeats {repeats}"
    figures = {}
    for name in engine or TARGET_S:
        size = ["--domains", str(domains), "--set", f"training.max_steps={steps}"]
        now_s, before_s = [], []
        for repeat in range(-1, repeats):  # the first only warms the disk's caches up
            pair = [(other, before_s), (ROOT, now_s)]
            for tree, times in pair if repeat % 2 else reversed(pair):
                taken_s = _measure(tree, [*size, "--engine", name, "--out"], runs / "startup")
                if repeat >= 0:
                    times.append(taken_s)
        ratios = [before / now for before, now in zip(before_s, now_s, strict=True)]
        key = f"startup/{domains}-domains/{name}"
        figures |= {
            f"{key}/time": figure(
                statistics.median(now_s),
                f"s ({min(now_s):.1f} to {max(now_s):.1f} in {repeats} repeats)",
                f"<= {TARGET_S[name]}",
                command,
                [0],
            ),
            f"{key}/over-{against}": figure(
                statistics.median(ratios),
                f"times as quick ({min(ratios):.2f} to {max(ratios):.2f} in {repeats} repeats)",
                None,
                command,
                [0],
            ),
        }
        typer.echo(f"{name}: {now_s} s now, {before_s} s at {against}")
    write_summary(HERE / "results", figures)


def _measure(tree: Path, arguments: list[str], out: Path) -> float:
    """Seconds of one command with the packages of a working copy."""
    fresh_folder(out)
    path = os.pathsep.join(str((tree / package).resolve()) for package in PACKAGES)
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": path}
    started_s = time.monotonic()
    subprocess.run(
        [sys.executable, "-P", "-c", CODE, "simulate", *arguments, str(out)],
        check=True,
        capture_output=True,
        env=os.environ | quiet,
    )
    return time.monotonic() - started_s


if __name__ == "__main__":
    typer.run(main)
