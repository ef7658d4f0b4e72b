"""graft's block engine beside Flower's engine, pfl-research and FedJAX: how often as fast?

python benchmarks/scale/compare.py --domains 1000 --architecture cnn-small --repeats 3

The sides run one after another, each repeat in the other order than the one before; a ratio is
taken within a repeat. The peers are installed first where they are not there. They train and do
nothing else, so the block engine's trainer alone (graft-trainer) stands beside them as well.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE / "peers")]
from graft_side import graft_command, run_graft
from install import install_peer, peer_python
from summary import figure, write_summary
from world import write_world

from graft.core.outputs import fresh_folder

console = Console(stderr=True)
ENGINES = ("block", "flower")
TRAINER = "graft-trainer"
PEERS = {
    TRAINER: "graft_trainer.py",
    "pfl-research": "pfl_research_peer.py",
    "fedjax": "fedjax_peer.py",
    "fedjax-as-released": "fedjax_peer.py",
}
# What the block engine is to reach, by the other side and the architecture; the trainer alone
# is held against the same.
SPEED_TARGETS = {
    ("flower", "cnn-small"): 6,
    ("flower", "mlp"): 13,
    ("flower", "gru"): 9,
    ("pfl-research", "cnn-small"): 3,
    ("fedjax", "cnn-small"): 2,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One side in one repeat.

    ``training_per_s``: domains over the seconds of their training alone, for graft that of the
    initial domains' phase. ``whole_per_s``: domains over the whole command, start-up included.
    """

    training_per_s: float
    whole_per_s: float | None
    peak_memory_bytes: int


def main(
    domains: Annotated[int, typer.Option(help="Domains that train.")] = 1000,
    architecture: Annotated[str, typer.Option(help="cnn-small, mlp, gru, ...")] = "cnn-small",
    repeats: Annotated[int, typer.Option(help="How often each side runs.")] = 3,
    side: Annotated[
        list[str] | None,
        typer.Option(help=f"Of {', '.join((*ENGINES, *PEERS))}; default: all but the last."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes of every side.")] = 2,
    runs: Annotated[Path, typer.Option(help="Worlds, run folders, the peers.")] = Path(
        "runs/scale"
    ),
    write: Annotated[bool, typer.Option(help="Write results/summary.json.")] = True,
) -> None:
    """Measure every side and write the ratios. Peers run where they have the architecture."""
    sides = _sides(side, architecture)
    for name in sides:
        if name in PEERS and name != TRAINER:
            install_peer(name, runs / "peers")
    world = runs / f"world-{domains}"
    write_world(world, domains, seed=0)
    measured: dict[str, list[Measurement]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in sides if repeat % 2 == 0 else sides[::-1]:
            if name in PEERS:
                found = measure_peer(name, architecture, domains, workers, runs)
            else:
                found = measure_engine(name, architecture, domains, workers, runs, world)
            measured[name].append(found)
            console.print(f"repeat {repeat}: {name}: {_words(found)}", highlight=False)
    command = (
        f"python benchmarks/scale/compare.py --domains {domains} --architecture {architecture} "
        f"--repeats {repeats}{''.join(f' --side {name}' for name in side or ())}"
    )
    figures = summarise(measured, domains, architecture, command)
    for name, entry in figures.items():
        target = f", target {entry['target']}" if entry["target"] else ""
        console.print(f"{name}: {entry['value']} {entry['unit']}{target}", highlight=False)
    if write:
        write_summary(HERE / "results", figures)


def measure_engine(
    engine: str, architecture: str, domains: int, workers: int, runs: Path, world: Path
) -> Measurement:
    """One run of ``graft simulate``; its folder is kept until the next."""
    out = runs / f"run-{engine}-{architecture}-{domains}"
    fresh_folder(out)
    command = graft_command(engine, architecture, world, domains, out, workers)
    run = run_graft(engine, command, domains, out)
    console.print(f"{engine}: {run.phases}", highlight=False, soft_wrap=True)
    return Measurement(
        training_per_s=domains / run.phases.training_s,
        whole_per_s=domains / run.phases.whole_s,
        peak_memory_bytes=run.peak_memory_bytes,
    )


def measure_peer(
    name: str, architecture: str, domains: int, workers: int, runs: Path
) -> Measurement:
    """One run of a peer's script in the peer's own environment; the trainer's is this one."""
    python = sys.executable if name == TRAINER else peer_python(name, runs / "peers")
    done = subprocess.run(
        [
            python, HERE / "peers" / PEERS[name],
            "--domains", str(domains), "--architecture", architecture,
            "--processes", str(workers),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    return Measurement(
        training_per_s=found["domains_per_s"],
        whole_per_s=None,
        peak_memory_bytes=found["pss_peak_bytes"],
    )


def summarise(
    measured: Mapping[str, Sequence[Measurement]], domains: int, architecture: str, command: str
) -> dict[str, dict[str, object]]:
    """A figure for each side's speed and memory, and for the block engine over each other side.

    A ratio is the median over repeats of the ratios within one repeat.
    """
    figures: dict[str, dict[str, object]] = {}
    prefix = f"{architecture}/{domains}-domains"

    def add(name: str, value: float, unit: str, target: str | None = None) -> None:
        figures[f"{prefix}/{name}"] = figure(value, unit, target, command, [0])

    for name, found in measured.items():
        add(f"{name}/training", median(m.training_per_s for m in found), "domains/s")
        whole = [m.whole_per_s for m in found if m.whole_per_s is not None]
        if whole:
            add(f"{name}/whole", median(whole), "domains/s, start-up included")
        peak_gb = max(m.peak_memory_bytes for m in found) / 1e9
        add(f"{name}/peak_memory", peak_gb, "GB (PSS of all processes)")
    ours = [name for name in ("block", TRAINER) if name in measured]
    for own, name in product(ours, measured):
        # Flower's engine does all that the block engine does, not its training alone.
        if name in ours or (own, name) == (TRAINER, "flower"):
            continue
        pairs = list(zip(measured[own], measured[name], strict=True))
        ratios = [mine.training_per_s / other.training_per_s for mine, other in pairs]
        wanted = SPEED_TARGETS.get((name, architecture))
        target = None if wanted is None else f">= {wanted}"
        add(f"{own}-over-{name}/training", median(ratios), _range(ratios), target)
        if name == "flower":
            ratios = [m.whole_per_s / o.whole_per_s for m, o in pairs if m.whole_per_s]
            add("block-over-flower/whole", median(ratios), _range(ratios))
            ratios = [m.peak_memory_bytes / o.peak_memory_bytes for m, o in pairs]
            add("block-over-flower/peak_memory", median(ratios), _range(ratios), "<= 1")
    return figures


def _range(ratios: Sequence[float]) -> str:
    return f"times ({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} repeats)"


def _words(found: Measurement) -> str:
    whole = "" if found.whole_per_s is None else f", whole {found.whole_per_s:.2f}"
    return (
        f"{found.training_per_s:.2f} domains/s{whole}, {found.peak_memory_bytes / 1e9:.2f} GB peak"
    )


def _sides(wanted: list[str] | None, architecture: str) -> list[str]:
    """The sides to run; a peer without the architecture is left out of the default."""
    known = [*ENGINES, *PEERS]
    for name in wanted or ():
        if name not in known:
            raise typer.BadParameter(f"--side {name}: wanted one of {known}")
    has_peer = architecture.startswith("cnn-")
    default = [*ENGINES, *([TRAINER, "pfl-research", "fedjax"] if has_peer else [])]
    return wanted or default


if __name__ == "__main__":
    typer.run(main)
