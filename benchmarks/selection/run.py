"""Which score picks the sources that turn out best?

    python benchmarks/selection/run.py --data hapt=FOLDER --data myo=FOLDER --seeds 5

FOLDER is what ``graft data prepare`` wrote; the embedded IMU world runs beside the sets. Initial
domains are trained by the system's own round 0, in this process. A finished (set, seed) is kept
under --work and not measured again.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from rich.console import Console
from rich.progress import Progress

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from by_seed import name_folders
from graft_server.model_store import open_store
from graft_server.signing import open_signer
from graft_simulation.in_process import LocalEdge
from graft_simulation.simulated_devices import devices_in_memory, simulated_factory
from measure import AS_IS, RENORMALISED, Offer, measure, open_offer, open_target
from summary import figure, write_summary
from tables import METRICS, figure_svg, judge_rows, judged_table, markdown, mean_of, select

from graft.core.config import ExpansionConfig, TrainingConfig, WorldConfig
from graft.core.exchange import Failure
from graft.core.files import replace_file
from graft.core.tables import write_table
from graft.data.domain import World
from graft.data.splits import schedule_rounds
from graft.data.worlds import open_world
from graft.errors import RunError
from graft.rounds import train_initial_domains

IMU_DOMAINS = 30
console = Console(stderr=True)


def main(
    data: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER; repeatable.")] = None,
    imu: Annotated[bool, typer.Option(help="Measure the embedded IMU world too.")] = True,
    seeds: Annotated[int, typer.Option(help="Seeds 0 to SEEDS - 1.")] = 5,
    targets: Annotated[int, typer.Option(help="Target domains a seed.")] = 5,
    steps: Annotated[
        int, typer.Option(help="Training steps of an initial domain, and of a head.")
    ] = 150,
    work: Annotated[Path, typer.Option(help="Where finished parts are.")] = Path("runs/selection"),
) -> None:
    """Measure every set and seed, then write the tables, the rows, the figure and summary.json."""
    torch.set_num_threads(1)
    worlds = {
        name: WorldConfig(kind="folder", path=str(folder))
        for name, folder in name_folders(data or []).items()
    }
    if imu:
        worlds["imu"] = WorldConfig(kind="imu", domains=IMU_DOMAINS)
    parts: list[pa.Table] = []
    with Progress(console=console) as progress:
        task = progress.add_task("", total=len(worlds) * seeds * (targets + 1))
        for done, (name, seed) in enumerate(product(worlds, range(seeds)), start=1):
            progress.update(task, description=f"{name}, seed {seed}")
            path = work / f"{name}-seed{seed}-newcomers{targets}-steps{steps}.parquet"
            if not path.exists():
                training = TrainingConfig(max_steps=steps)
                config = ExpansionConfig(seed=seed, world=worlds[name], training=training)
                table = measure_seed(name, config, targets, partial(progress.advance, task))
                work.mkdir(parents=True, exist_ok=True)
                write_table(table, path)
            progress.update(task, completed=done * (targets + 1))
            parts.append(pq.read_table(path))
    command = "python benchmarks/selection/run.py " + "".join(
        f"--data {name}=FOLDER " for name in worlds if name != "imu"
    )
    command += f"--seeds {seeds} --targets {targets} --steps {steps}"
    write_results(pa.concat_tables(parts), list(worlds), command, seeds)


def measure_seed(
    name: str, config: ExpansionConfig, targets: int, advance: Callable[[], None]
) -> pa.Table:
    """Found a system, then score its initial domains for the first targets of the seed's order."""
    world = open_world(config.world, config.seed)
    initial_domains, arriving = schedule_rounds(world, config.split, 1, config.seed)
    offers = find_offers(world, config, initial_domains)
    advance()
    rows = []
    for domain_id in arriving[:targets]:
        target = open_target(domain_id, world, config)
        scored, probing = measure(target, offers, config)
        rows += [
            {
                "set": name,
                "seed": config.seed,
                "target": domain_id,
                **dataclasses.asdict(row),
                "probing_s": probing.get(row.probe),
            }
            for row in scored
        ]
        advance()
    return pa.Table.from_pylist(rows)


def find_offers(
    world: World, config: ExpansionConfig, initial_domains: Sequence[str]
) -> list[Offer]:
    """Round 0 of the system in this process: the initial domains' cards, with their models."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = open_store(folder / "models", world.task)
        signer = open_signer(folder / "keys", folder.name)
        factory = simulated_factory(config, world, folder.name, signer.public_key, store)
        devices = devices_in_memory(factory, store, lambda entry: None)
        edge = LocalEdge(folder.name, initial_domains, devices, lambda entry: None)
        initial_training = train_initial_domains(initial_domains, edge, signer.sign)
        failed = [report for report in initial_training.reports if isinstance(report, Failure)]
        if failed:
            raise RunError(f"initial domain {failed[0].domain_id}: {failed[0].message}")
        return [open_offer(card, world, store, config) for card in initial_training.state.catalogue]


def write_results(scored: pa.Table, names: Sequence[str], command: str, seeds: int) -> None:
    """Judge every score and write what the folder ``results`` holds."""
    rows = scored.to_pylist()
    judged = judge_rows(rows)
    probing = {
        probe: float(np.mean([row["probing_s"] for row in rows if row["probe"] == probe]))
        for probe in (AS_IS, RENORMALISED)
    }
    targets = len({(row["set"], row["seed"], row["target"]) for row in judged})
    title = f"Selection quality: {', '.join(names)}; {seeds} seeds, {targets} target domains"
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    write_table(judged_table(judged), folder / "rows.parquet")
    text = markdown(judged, title, probing)
    replace_file(folder / "table.md", text.encode())
    replace_file(folder / "weighted-tau.svg", figure_svg(judged, title).encode())
    figures = {}
    for (score, probe), found in select(judged, "taught", None).items():
        for metric in METRICS:
            if score == "ship-all" and metric != "shortfall_5":
                continue
            tau = metric == "weighted_tau"
            figures[f"{score}/{probe}/{metric}"] = figure(
                mean_of(found, metric) * (1 if tau else 100),
                "tau, -1 to 1" if tau else "points",
                None,
                command,
                range(seeds),
            )
    write_summary(folder, figures)
    console.print(text.split("\n## ")[2], highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
