"""A domain is forgotten, with the process killed at any moment: is anything of it left?

    python benchmarks/trust/forgetting.py --kills 50

A run of three rounds of target domains is grown. For each policy, a copy of it forgets one initial
domain and is resumed; then other copies do the same while ``kill -9`` ends the process at random
moments, and it is started again. Every copy must end as the undisturbed one, and no file of it
may hold the domain's payloads or cards, nor those of models that were trained again.
"""

import hashlib
import multiprocessing
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pyarrow.parquet as pq
import typer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import graft_simulation.block.engine  # noqa: F401
from graft_server.run_folder import RunFolder
from summary import figure, write_summary

import graft
import graft.api  # once: each process is a fork of this one
from graft.core.outputs import fresh_folder

DOMAIN = "user-000003"
_FORK = multiprocessing.get_context("fork")
# Times and process ids; the hash covers the rest of these.
TIMED = {"lock", "run.toml", "progress.json", "round.json", "ledger.parquet", "results.parquet"}
POLICIES = ("keep", "quarantine", "retrain")
SETTINGS = {"world.windows_per_domain": 60, "training.max_steps": 8, "selection.num_sources": 3}


def main(
    kills: Annotated[int, typer.Option(help="Kills in all.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the world and of the moments.")] = 0,
    work: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/trust-forgetting"),
) -> None:
    """Compare copies with kills with copies without."""
    fresh_folder(work)
    grown = work / "grown" / "run"
    _run_whole(_grow, grown, seed)
    chance = random.Random(seed)  # noqa: S311  (the moments are no secret)
    count = runs = same = left = 0
    undisturbed: dict[str, tuple[str, float]] = {}
    for policy in POLICIES:
        folder, started_s = _copy(grown, work / policy), time.monotonic()
        _run_whole(_forget, folder, policy)
        undisturbed[policy] = _digest(folder), time.monotonic() - started_s
        left += len(_holding(folder, _contents(grown, folder)))
    while count < kills:
        policy = POLICIES[runs % len(POLICIES)]
        wanted, whole_s = undisturbed[policy]
        folder = _copy(grown, work / f"run-{runs}")
        for _ in range(min(4, kills - count)):
            count += _is_killed(folder, policy, chance.uniform(0, 0.7 * whole_s))
        _run_whole(_forget, folder, policy)
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


def _grow(folder: Path, seed: int) -> None:
    graft.simulate(
        domains=14, rounds=3, seed=seed, comparisons=["fedavg"], settings=SETTINGS,
        engine="block", workers=0, out=folder,
    )  # fmt: skip


def _forget(folder: Path, policy: Literal["keep", "quarantine", "retrain"]) -> None:
    graft.forget(folder, DOMAIN, descendants=policy)
    graft.resume(folder, workers=0)


def _run_whole(function: Callable[..., None], *arguments: object) -> None:
    process = _FORK.Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__}: ended with {process.exitcode}")


def _is_killed(folder: Path, policy: str, seconds: float) -> bool:
    """Start the steps and kill them after so long; whether they were still at it."""
    process = _FORK.Process(target=_forget, args=(folder, policy))
    process.start()
    process.join(seconds)
    is_running = process.is_alive()
    process.kill()
    process.join()
    return is_running


def _digest(folder: Path) -> str:
    """The run's hash, and every file that is the same in each run of the same steps."""
    digest = hashlib.sha256(graft.open_run(folder).hash.encode())
    state = RunFolder(folder).read_state()
    named = {card.model_id for card in (*state.catalogue, *state.architecture_averages)}
    for path in sorted(folder.rglob("*")):
        name = path.name
        # What a round pushed and no card names stays until the next one, or goes if it runs again.
        is_other_model = path.parent.name == "models" and name.partition(".")[0] not in named
        if path.is_file() and not (is_other_model or name in TIMED or name.startswith(".partial-")):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _contents(grown: Path, folder: Path) -> list[bytes]:
    """Payloads and cards that may be in no file: the domain's, and of models trained again."""
    gone = {DOMAIN}
    after = {row["model_id"] for row in _cards(folder)}
    rows = [row for row in _cards(grown) if row["model_id"] not in after]
    assert gone <= {row["domain_id"] for row in rows}
    payloads = [p.read_bytes() for row in rows for p in grown.glob(f"models/{row['model_id']}.*")]
    return [*payloads, *(row["card"] for row in rows)]


def _cards(folder: Path) -> list[dict[str, object]]:
    paths = sorted(folder.glob("rounds/*/catalogue.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def _holding(folder: Path, contents: list[bytes]) -> list[Path]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if any(each in path.read_bytes() for each in contents)]


if __name__ == "__main__":
    typer.run(main)
