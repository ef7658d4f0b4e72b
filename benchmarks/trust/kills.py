"""Any process of a deployment killed at any moment: is it the same run in the end?

python benchmarks/trust/kills.py --kills 200
"""

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import psutil
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary
from trust.field import Field, write_world

from graft.core.ledger import delivered
from graft.core.outputs import fresh_folder
from graft.core.tables import read_ledger, read_results
from graft.data.synthetic.imu import CHANNELS, ImuWorld

HERE = Path(__file__).resolve().parent
SETTINGS = {"training.max_steps": 20, "selection.num_sources": 2}
ROUNDS = (("user-000000", "user-000001"), ("user-000002",), ("user-000003", "user-000004"))


def main(
    kills: Annotated[int, typer.Option(help="Kills in all.")] = 200,
    every_s: Annotated[float, typer.Option(help="Mean seconds between two kills.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the moments and the victims.")] = 0,
    work: Annotated[Path, typer.Option(help="Where deployments go.")] = Path("runs/trust-kills"),
) -> None:
    """One expansion left alone; then deployments whose processes are killed until they end."""
    fresh_folder(work)
    domains = [domain_id for round_ in ROUNDS for domain_id in round_]
    write_world(ImuWorld(len(domains), 60, seed=seed), domains, work / "data", list(CHANNELS))
    wanted = _outcome(work, "reference", domains, None)
    chance = random.Random(seed)  # noqa: S311  (which process dies is no secret)
    victims: Counter[str] = Counter()
    runs = same = 0
    while sum(victims.values()) < kills:
        killer = _Killer(chance, every_s, kills - sum(victims.values()))
        same += _outcome(work, f"run-{runs}", domains, killer) == wanted
        victims += killer.victims
        runs += 1
        print(f"{sum(victims.values())} kills, {same} of {runs} runs the same", flush=True)
    text = f"python benchmarks/trust/kills.py --kills {kills} --every-s {every_s:g}"
    figures = {
        "kills/same": figure(100 * same / runs, f"% of {runs} runs", "100", text, [seed]),
        "kills/kills": figure(sum(victims.values()), "processes killed", "200", text, [seed]),
    }
    for role, count in sorted(victims.items()):
        figures[f"kills/{role}"] = figure(count, "times killed", None, text, [seed])
    write_summary(HERE / "results", figures)
    if same < runs:
        raise typer.Exit(1)


def _outcome(
    work: Path, name: str, domains: Sequence[str], killer: "_Killer | None"
) -> tuple[object, object]:
    """What a deployment's three rounds gave: every model, and the bytes delivered, by key."""
    with Field(work / name, work / "data", domains, settings=SETTINGS) as field:
        if killer is not None:
            killer.start(field)
        for index, arriving in enumerate(ROUNDS):
            started_s = time.monotonic()
            if status := field.expand(arriving, initial_domains=index == 0):
                raise RuntimeError(f"{name}: expansion {index} ended with {status}")
            print(f"{name}: round {index} in {time.monotonic() - started_s:.0f} s", flush=True)
        if killer is not None:
            killer.stop()
        folder = field.run_folder()
        rows = read_results(folder / "results.parquet")
        models = {(row.domain_id, row.method, row.round_index): row.model_id for row in rows}
        return models, delivered(read_ledger(folder / "ledger.parquet"))


class _Killer:
    """Kills one of a field's processes now and then: first a role is drawn, then one of it."""

    def __init__(self, chance: random.Random, every_s: float, most: int) -> None:
        self.victims: Counter[str] = Counter()
        self._chance = chance
        self._every_s = every_s
        self._most = most
        self._stopped = threading.Event()

    def start(self, field: Field) -> None:
        threading.Thread(target=self._run, args=[field], daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self, field: Field) -> None:
        while self.victims.total() < self._most:
            if self._stopped.wait(self._chance.expovariate(1 / self._every_s)):
                return
            living = field.processes()
            if not living:
                continue
            role = self._chance.choice(sorted(living))
            victim = self._chance.choice(sorted(living[role], key=lambda process: process.pid))
            try:
                victim.kill()
            except psutil.Error:
                continue
            self.victims[role] += 1
            print(f"  killed {role}", flush=True)


if __name__ == "__main__":
    typer.run(main)
