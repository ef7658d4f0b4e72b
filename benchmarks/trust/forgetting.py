"""A domain is forgotten, with the process killed at any moment: is anything of it left?

    python benchmarks/trust/forgetting.py --kills 50

A run of three rounds of target domains is grown. For each policy, a copy of it forgets one initial
domain and is resumed; then other copies do the same while ``kill -9`` ends the process at random
moments, and it is started again. Every copy must end as the undisturbed one, and no file of it
may hold the domain's payloads or cards, nor those of models that were trained again.
"""

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from summary import figure, write_summary

import graft

DOMAIN = "user-000003"
POLICIES = ("keep", "quarantine", "retrain")
SETTINGS = {"world.windows_per_domain": 60, "training.max_steps": 8, "selection.num_sources": 3}
STEPS = """
import sys, graft
folder, domain, policy = sys.argv[1:]
graft.forget(folder, domain, descendants=policy)
print("forgotten", flush=True)
graft.resume(folder, workers=0)
"""


def main(
    kills: Annotated[int, typer.Option(help="Kills in all.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the world and of the moments.")] = 0,
    work: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/trust-forgetting"),
) -> None:
    """Compare copies with kills with copies without."""
    shutil.rmtree(work, ignore_errors=True)
    grown = work / "grown" / "run"
    graft.simulate(
        domains=14, rounds=3, seed=seed, comparisons=["fedavg"], settings=SETTINGS,
        engine="block", workers=0, out=grown,
    )  # fmt: skip
    chance = random.Random(seed)  # noqa: S311  (the moments are no secret)
    count = runs = same = left = 0
    undisturbed: dict[str, tuple[str, float]] = {}
    for policy in POLICIES:
        folder, started_s = _copy(grown, work / policy), time.monotonic()
        subprocess.run(_command(folder, policy), check=True, stdout=subprocess.DEVNULL)
        undisturbed[policy] = _digest(folder), time.monotonic() - started_s
        left += len(_holding(folder, _contents(grown, folder)))
    while count < kills:
        policy = POLICIES[runs % len(POLICIES)]
        wanted, whole_s = undisturbed[policy]
        folder = _copy(grown, work / f"run-{runs}")
        for _ in range(min(5, kills - count)):
            count += _kill_within(folder, policy, chance.uniform(0.5 * whole_s, whole_s))
        subprocess.run(_command(folder, policy), check=True, stdout=subprocess.DEVNULL)
        runs += 1
        same += _digest(folder) == wanted
        left += len(_holding(folder, _contents(grown, folder)))
        shutil.rmtree(folder.parent)
        print(f"{count} kills, {same} of {runs} the same, {left} files left", flush=True)
    text = f"python benchmarks/trust/forgetting.py --kills {kills}"
    figures = {
        "forgetting/kills": figure(count, "processes killed", "50", text, [seed]),
        "forgetting/same": figure(100 * same / runs, f"% of {runs} runs", "100", text, [seed]),
        "forgetting/left": figure(left, "files with a payload or card", "0", text, [seed]),
    }
    write_summary(HERE / "results", figures)
    if same < runs or left:
        raise typer.Exit(1)


def _copy(grown: Path, target: Path) -> Path:
    """A copy of the same name, which is the run's in its hash."""
    return Path(shutil.copytree(grown, target / grown.name))


def _command(folder: Path, policy: str) -> list[str]:
    return [sys.executable, "-c", STEPS, str(folder), DOMAIN, policy]


def _kill_within(folder: Path, policy: str, seconds: float) -> bool:
    """Start the steps and kill them after so long; whether they were still at it."""
    with subprocess.Popen(_command(folder, policy), stdout=subprocess.DEVNULL) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return True
    return False


def _digest(folder: Path) -> str:
    """The run's hash and every file, but for times."""
    digest = hashlib.sha256(graft.open_run(folder).hash.encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name in _compared(path):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _compared(path: Path) -> set[str]:
    """Ledgers and results hold measured seconds where a round ran again."""
    timed = {"run.toml", "progress.json", "round.json", "ledger.parquet", "results.parquet"}
    return set() if path.name in timed else {path.name}


def _contents(grown: Path, folder: Path) -> list[bytes]:
    """Payloads and cards that may be in no file: the domain's, and of models trained again."""
    gone = {DOMAIN}
    after = {row["model_id"] for row in _cards(folder)}
    rows = [row for row in _cards(grown) if row["model_id"] not in after]
    assert gone <= {row["domain_id"] for row in rows}
    payloads = [p.read_bytes() for row in rows for p in grown.glob(f"models/{row['model_id']}.*")]
    return [*payloads, *(row["card"] for row in rows)]


def _cards(folder: Path) -> list[dict[str, object]]:
    last = max(folder.glob("rounds/*"), key=lambda path: int(path.name))
    rows: list[dict[str, object]] = pq.read_table(last / "catalogue.parquet").to_pylist()
    return rows


def _holding(folder: Path, contents: list[bytes]) -> list[Path]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if any(each in path.read_bytes() for each in contents)]


if __name__ == "__main__":
    typer.run(main)
