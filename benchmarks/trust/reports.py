"""How often do target domains of a clean system doubt or report honest initial domains?

    python benchmarks/trust/reports.py

Each of eight target domains probes the ten nearest of 14 honest initial domains, with one check on
at a time and with several numbers of labels. A doubt keeps a source from that one target domain. A
report counts for others only where the server finds a fault of the source itself: how often it
would, for every honest source, is what colluding target domains could make of a clean system. Rows
of every seed are in results/reports.jsonl, and a seed that is there is not run again.
"""

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
from graft_server.model_store import find_fault, open_store
from graft_server.signing import open_signer
from graft_simulation.in_process import LocalEdge
from graft_simulation.simulated_devices import devices_in_memory, simulated_factory
from summary import figure, write_summary

from graft.core.config import ExpansionConfig, SplitConfig, TrustConfig
from graft.core.config_files import with_settings
from graft.core.exchange import ProbeRequest, ProfileRequest, Selection
from graft.core.records import DomainProfile, LedgerEntry
from graft.data.domain import World
from graft.data.splits import split_rows
from graft.data.synthetic.digits import DigitsWorld
from graft.data.synthetic.imu import ImuWorld
from graft.rounds import train_initial_domains
from graft.selection import RECOMPUTED, rank_catalogue

HERE = Path(__file__).resolve().parent
ROWS = HERE / "results" / "reports.jsonl"
COMMAND = "python benchmarks/trust/reports.py"
RUN, NUM_HONEST, NUM_TARGETS = "reports", 14, 8
GAMMAS = (0.02, 0.05, 0.1, 0.2, 0.4)
CHECKS = {
    "verify": TrustConfig(),
    "disagreement": TrustConfig(verify=False, disagreement=True),
    "chance": TrustConfig(verify=False, chance=True),
}
SETTINGS = {"training.max_steps": 150}
console = Console(stderr=True)


def main(seeds: Annotated[int, typer.Option(min=1, help="Seeds, from 0.")] = 8) -> None:
    """Run the seeds that are missing, then write results/summary.json."""
    torch.set_num_threads(1)
    known = (
        [json.loads(line) for line in ROWS.read_text("utf-8").splitlines()] if ROWS.exists() else []
    )
    for seed in range(seeds):
        for name, world in worlds(seed):
            if not any((row["seed"], row["world"]) == (seed, name) for row in known):
                found = list(rows(seed, name, world))
                known += found
                with ROWS.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in found)
                console.print(f"seed {seed} {name}: {found}", highlight=False)
    write_summary(HERE / "results", figures(known))


def worlds(seed: int) -> Iterator[tuple[str, World]]:
    """The embedded worlds, by name."""
    size = NUM_HONEST + NUM_TARGETS
    yield "imu", ImuWorld(size, ExpansionConfig().world.windows_per_domain, seed)
    yield "digits", DigitsWorld(size, 80, seed)


def rows(seed: int, name: str, world: World) -> Iterator[dict[str, Any]]:
    """A row for each number of labels and check, and one for the server's own check."""
    config = with_settings(ExpansionConfig(seed=seed, comparisons=()), SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        signer = open_signer(Path(folder) / "keys", RUN)
        store = open_store(Path(folder) / "models", world.task)

        def edge(settings: ExpansionConfig) -> LocalEdge:
            entries: list[LedgerEntry] = []
            factory = simulated_factory(settings, world, RUN, signer.public_key, store)
            devices = devices_in_memory(factory, store, entries.append)
            return LocalEdge(RUN, world.domain_ids, devices, entries.append)

        honest, targets = world.domain_ids[NUM_TARGETS:], world.domain_ids[:NUM_TARGETS]
        done = train_initial_domains(honest, edge(config), signer.sign)
        assert not done.failures, done.failures
        catalogue = done.state.catalogue
        faulty = {c.model_id for c in catalogue if find_fault(c, store, world.task, config)}
        yield {"seed": seed, "world": name, "sources": len(catalogue), "faulty": len(faulty)}
        for gamma in GAMMAS:
            for check, trust in CHECKS.items():
                settings = replace(config, split=SplitConfig(gamma=gamma), trust=trust)
                counts, doubts = Counter[str](), Counter[str]()
                asks = [ProfileRequest(domain_id=d, round_index=1) for d in targets]
                profiles = edge(settings).ask(asks)
                assert all(isinstance(each, DomainProfile) for each in profiles), profiles
                ranked = rank_catalogue(profiles, catalogue, settings.selection)
                probes = [
                    ProbeRequest(
                        domain_id=domain_id,
                        round_index=1,
                        method="graft",
                        candidates=tuple(card.for_probe() for card, _ in near),
                        coarse_distances=tuple(distance for _, distance in near),
                    )
                    for domain_id, near in zip(targets, ranked, strict=True)
                ]
                for request, selection in zip(probes, edge(settings).ask(probes), strict=True):
                    assert isinstance(selection, Selection), selection
                    counts["offers"] += len(request.candidates)
                    doubts.update(each.reason for each in selection.rejected)
                    counts["reported"] += sum(
                        each.reason in RECOMPUTED and each.model_id in faulty
                        for each in selection.rejected
                    )
                labels = [
                    len(split_rows(world.load(d), settings.split, seed).labelled_N) for d in targets
                ]
                yield {
                    "seed": seed, "world": name, "gamma": gamma, "check": check,
                    "labels": float(np.mean(labels)), **counts, "doubts": dict(doubts),
                }  # fmt: skip


def figures(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Percentages of the offers, by world, check and number of labels."""
    told: dict[str, Any] = {}
    for world in sorted({row["world"] for row in found}):
        own = [row for row in found if row["world"] == world]
        seeds = sorted({row["seed"] for row in own})
        name = f"reports/{world}"
        checked = [row for row in own if "sources" in row]
        rate = 100 * sum(r["faulty"] for r in checked) / sum(r["sources"] for r in checked)
        told[f"{name}/honest-faulty-to-the-server"] = figure(rate, "%", "at most 1", COMMAND, seeds)
        for gamma in GAMMAS:
            for check in CHECKS:
                cells = [r for r in own if (r.get("gamma"), r.get("check")) == (gamma, check)]
                offers = sum(row["offers"] for row in cells)
                doubted = 100 * sum(sum(row["doubts"].values()) for row in cells) / offers
                reported = 100 * sum(row["reported"] for row in cells) / offers
                cell = f"{name}/gamma-{gamma:g}"
                told[f"{cell}/labels"] = figure(
                    np.mean([row["labels"] for row in cells]), "rows", None, COMMAND, seeds
                )
                told[f"{cell}/{check}/doubted"] = figure(doubted, "%", None, COMMAND, seeds)
                told[f"{cell}/{check}/reported"] = figure(
                    reported, "%", "at most 1", COMMAND, seeds
                )
    return told


if __name__ == "__main__":
    typer.run(main)
