"""How many domains fit one machine through Flower's own engine, and in how much memory?

python benchmarks/scale/run.py --domains 200
"""

import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary

HERE = Path(__file__).resolve().parent


def main(
    domains: Annotated[int, typer.Option(help="Virtual SuperNodes.")] = 200,
    steps: Annotated[int, typer.Option(help="Training steps a model.")] = 100,
    runs: Annotated[Path, typer.Option(help="Where the run folder goes.")] = Path("runs/scale"),
) -> None:
    """One expansion of that many domains, HaT-style beside label-only, and what it took."""
    run = runs / f"flower-{domains}"
    started_s = time.monotonic()
    subprocess.run(
        [
            Path(sys.executable).with_name("graft"), "simulate", "--domains", str(domains),
            "--set", f"training.max_steps={steps}", "--set", 'comparisons=["label-only"]',
            "--out", str(run), "--workers", "2",
        ],
        check=True,
    )  # fmt: skip
    elapsed_s = time.monotonic() - started_s
    facts = tomllib.loads((run / "run.toml").read_text("utf-8"))["run"]
    command = f"python benchmarks/scale/run.py --domains {domains} --steps {steps}"
    name = f"flower/{domains}-domains"
    write_summary(
        HERE / "results",
        {
            f"{name}/time": figure(elapsed_s, "s", None, command, [0]),
            f"{name}/peak_memory": figure(
                facts["peak_memory_bytes"] / 1e9, "GB (PSS of all processes)", None, command, [0]
            ),
        },
    )


if __name__ == "__main__":
    typer.run(main)
