"""100,000 domains join, are profiled, stored and ranked: how long, in how much memory?

python benchmarks/scale/profiles.py --domains 100000 --targets 100
"""

import sys
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from graft_server.catalogue import write_profiles
from graft_server.signing import open_signer
from graft_simulation.block.checkpoints import BlockCheckpoints
from graft_simulation.block.edge import BlockEdge, Domains
from graft_simulation.block.engine import run_on_workers
from graft_simulation.block.worker import WorkerContext
from graft_simulation.environment import memory_measured
from graft_simulation.workers import Workers
from summary import figure, write_summary

from graft.core.config import ExpansionConfig
from graft.core.config_files import with_settings
from graft.core.exchange import ProfileRequest
from graft.core.outputs import fresh_folder
from graft.core.records import DomainProfile, LedgerEntry
from graft.core.tables import read_table
from graft.data.worlds import open_world
from graft.selection import ProfileRanking

HERE = Path(__file__).resolve().parent


def main(
    domains: Annotated[int, typer.Option(help="Synthetic domains.")] = 100_000,
    targets: Annotated[int, typer.Option(help="How many of them are ranked for.")] = 100,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 2,
    runs: Annotated[Path, typer.Option(help="Where steps and profiles go.")] = Path("runs/scale"),
) -> None:
    """Join, profile, store and rank, as a round of the block engine does it."""
    folder = (runs / f"profiles-{domains}").absolute()
    fresh_folder(folder)
    config = with_settings(ExpansionConfig(), {"world.domains": domains})
    world = open_world(config.world, config.seed)
    entries: list[LedgerEntry] = []
    stored = folder / "profiles.parquet"
    started_s = time.monotonic()
    with memory_measured() as memory, Workers(workers) as pool, Progress() as bars:
        bar = bars.add_task("profile", total=domains)
        context = WorkerContext(
            config=config,
            run="profiles",
            models=folder / "models",
            public_key=open_signer(folder / "keys", "profiles").public_key,
        )
        edge = BlockEdge(
            "profiles",
            Domains(ids=world.domain_ids, architecture_of=lambda domain_id: ""),
            run_on_workers(context, pool),
            BlockCheckpoints(folder / "steps"),
            entries.append,
            lambda phase, done, wanted: bars.update(bar, completed=done),
        )
        edge.join()
        orders = [ProfileRequest(domain_id=d, round_index=0) for d in world.domain_ids]
        responses = edge.ask(orders)
        profiles = [response for response in responses if isinstance(response, DomainProfile)]
        assert len(profiles) == domains, f"got {len(profiles)} profiles, wanted {domains}"
        write_profiles(profiles, stored)
        values = read_table(stored)["statistics"].combine_chunks().values
        statistics_SD = values.to_numpy().reshape(domains, -1)
        sources_SD = statistics_SD[: domains - targets]
        ranking_s = time.monotonic()
        ranked = list(ProfileRanking(sources_SD).nearest(statistics_SD[-targets:], 10))
        ranking_s = time.monotonic() - ranking_s
        assert all(len(near) >= 10 for near in ranked)
    elapsed_s = time.monotonic() - started_s
    command = f"python benchmarks/scale/profiles.py --domains {domains} --targets {targets}"
    name = f"profiles/{domains}-domains"
    traffic = sum(entry.payload_bytes for entry in entries)
    figures = {
        f"{name}/time": figure(elapsed_s, "s", "below 600", command, [0]),
        f"{name}/peak_memory": figure(
            memory.peak_bytes / 1e9, "GB (PSS of all processes)", "below 8", command, [0]
        ),
        f"{name}/ranking": figure(
            1e3 * ranking_s, f"ms for {targets} target domains", None, command, [0]
        ),
        f"{name}/traffic": figure(traffic / domains, "payload bytes a domain", None, command, [0]),
        "profiles/ranking-of-10000": figure(
            _one_ranking_ms(sources_SD[:10_000], statistics_SD[-targets:]),
            "ms for one target domain", "below 5", command, [0],
        ),
    }  # fmt: skip
    for key, entry in figures.items():
        print(f"{key}: {entry['value']} {entry['unit']}")
    write_summary(HERE / "results", figures)


def _one_ranking_ms(sources_SD: np.ndarray, targets_ND: np.ndarray) -> float:
    """Median over the target domains, one at a time, against a catalogue that is laid out."""
    ranking = ProfileRanking(sources_SD)
    taken_s = []
    for target_D in targets_ND:
        start_s = time.perf_counter()
        list(ranking.nearest(target_D[None], 10))
        taken_s.append(time.perf_counter() - start_s)
    return 1e3 * median(taken_s)


if __name__ == "__main__":
    typer.run(main)
