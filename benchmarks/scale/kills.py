"""Any process of a run killed at any moment: is it the same run in the end?

python benchmarks/scale/kills.py --kills 50
"""

import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated

import psutil
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary

from graft.core.outputs import fresh_folder

HERE = Path(__file__).resolve().parent
GRAFT = Path(sys.executable).with_name("graft")
# A run that neither ends nor goes on after a kill would hang for ever.
LIMIT_S = 600


def main(
    kills: Annotated[int, typer.Option(help="Kills in all.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the moments and the victims.")] = 0,
    domains: Annotated[int, typer.Option(help="Domains of the run.")] = 40,
    steps: Annotated[int, typer.Option(help="Training steps a model.")] = 30,
    runs: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs/scale"),
) -> None:
    """One run to its end; then runs that are killed and resumed until they end."""
    command = [
        str(GRAFT), "simulate", "--engine", "block", "--workers", "2", "--domains", str(domains),
        "--rounds", "2", "--set", f"training.max_steps={steps}",
        "--set", 'comparisons=["label-only", "average-kd-selected"]',
    ]  # fmt: skip
    wanted = runs / "kills-reference"
    fresh_folder(wanted)
    started_s = time.monotonic()
    subprocess.run([*command, "--out", str(wanted)], check=True, capture_output=True)
    whole_s = time.monotonic() - started_s
    chance = random.Random(seed)  # noqa: S311  (which process dies is no secret)
    victims: Counter[str] = Counter()
    finished = same = resumes = 0
    while sum(victims.values()) < kills:
        run = runs / f"kills-{finished}"
        fresh_folder(run)
        first = True
        while not _is_finished(run):
            start = ["--out", str(run)] if first else ["--resume", str(run)]
            going = [*command, *start] if first else [str(GRAFT), "simulate", *start]
            first = not (run / "run.toml").exists()
            left = kills - sum(victims.values())
            victims.update(_killed(going, whole_s, chance) if left else _left_alone(going))
            first = not (run / "run.toml").exists()
            resumes += not first
            print(f"{sum(victims.values())} kills: {dict(victims)}", flush=True)
        finished += 1
        same += _hash(run) == _hash(wanted)
        print(f"run {finished}: {'the same hash' if same == finished else 'ANOTHER HASH'}")
    text = f"python benchmarks/scale/kills.py --kills {kills}"
    figures = {
        "kills/same-hash": figure(
            100 * same / finished, f"% of {finished} runs", "100", text, [seed]
        ),
        "kills/kills": figure(sum(victims.values()), "processes killed", "50", text, [seed]),
        "kills/resumes": figure(resumes, "times a run was resumed", None, text, [seed]),
    }
    write_summary(HERE / "results", figures)
    for victim, count in sorted(victims.items()):
        print(f"{count} x {victim}")
    if same < finished:
        raise typer.Exit(1)


def _killed(command: list[str], whole_s: float, chance: random.Random) -> list[str]:
    """Start a run, kill one of its processes at some moment, wait for the end; who was killed."""
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(chance.uniform(0.05, 0.9) * whole_s)
        return []  # it ended before its turn came
    except subprocess.TimeoutExpired:
        pass
    family = sorted(psutil.Process(process.pid).children(recursive=True), key=lambda p: p.pid)
    # The run itself half of the time: its workers are many.
    victim = psutil.Process(process.pid)
    if family and chance.random() < 0.5:
        victim = chance.choice(family)
    name = "graft" if victim.pid == process.pid else _role(victim)
    victim.kill()
    try:
        process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"the run hangs after {name} was killed") from None
    finally:
        # What Ray leaves behind of a killed run must not answer the next one.
        for child in family:
            if child.is_running():
                child.kill()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return [name]


def _left_alone(command: list[str]) -> list[str]:
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
    return []


def _role(process: psutil.Process) -> str:
    """What a process of the run is for."""
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return "gone"
    if "graft_simulation.workers" in words:
        return "worker"
    for name in ("raylet", "gcs_server", "ray::", "dashboard", "log_monitor", "runtime_env"):
        if name in words:
            return "worker" if name == "ray::" else name
    return "other"


def _facts(run: Path) -> dict[str, str]:
    path = run / "run.toml"
    return tomllib.loads(path.read_text("utf-8"))["run"] if path.exists() else {}


def _is_finished(run: Path) -> bool:
    return _facts(run).get("status") == "complete"


def _hash(run: Path) -> str:
    return _facts(run)["hash"]


if __name__ == "__main__":
    typer.run(main)
