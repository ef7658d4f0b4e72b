"""What do lying sources do to newcomers, and what does each defence against them change?

    python benchmarks/trust/poison.py

The same honest founders with and without liars beside them, 10 % or 30 % of all sources. Each
attack is met with every defence off, all on, and at 30 % each alone. Everything runs in this
process on one thread.
"""

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
from summary import figure, write_summary
from system import ATTACKS, Outcome, Village

from graft.config import ExpansionConfig, TrustConfig, with_settings

HERE = Path(__file__).resolve().parent
COMMAND = "python benchmarks/trust/poison.py"
SHARES = (0.1, 0.3)
OFF = TrustConfig(verify=False)
DEFENCES = {
    "off": OFF,
    "on": TrustConfig(verify=True, chance=True, share_cap=0.4, disagreement=True),
    "default": TrustConfig(),
    "chance": replace(OFF, chance=True),
    "cap": replace(OFF, share_cap=0.4),
    "disagreement": replace(OFF, disagreement=True),
}
SETTINGS = {"training.max_steps": 150}
console = Console(stderr=True)


@dataclass(frozen=True)
class Cell:
    """One expansion: a method under an attack ("clean": none) with some defences."""

    method: str
    attack: str
    share: float
    defence: str

    @property
    def name(self) -> str:
        liars = "" if self.attack == "clean" else f"-{self.share:.0%}"
        return f"{self.method}/{self.attack}{liars}/{self.defence}"


Outcomes = dict[Cell, dict[int, Outcome]]


def cells() -> Iterator[Cell]:
    """Every cell; the slower method has those at 30 % alone."""
    for defence in DEFENCES:
        yield Cell("graft", "clean", 0, defence)
        for attack in ATTACKS:
            for share in SHARES if defence in ("off", "on") else (0.3,):
                yield Cell("graft", attack, share, defence)
    for defence in ("off", "on"):
        yield Cell("hat", "clean", 0, defence)
        for attack in ATTACKS:
            yield Cell("hat", attack, 0.3, defence)
    # The backdoor must be there to be found harmless: a source as it stands has it.
    for attack in ("clean", "backdoor"):
        yield Cell("best-source", attack, 0.3 if attack == "backdoor" else 0, "off")


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, from 0.")] = 3,
    newcomers: Annotated[int, typer.Option(min=1, help="Newcomers a seed.")] = 4,
    work: Annotated[Path, typer.Option(help="Where outcomes are kept.")] = Path("runs/poison"),
    kept: Annotated[bool, typer.Option(help="Run nothing: tell what is kept so far.")] = False,
) -> None:
    """Run what is missing, then write results/summary.json."""
    work.mkdir(parents=True, exist_ok=True)
    outcomes: Outcomes = defaultdict(dict)
    for seed in range(seeds):
        known = kept_outcomes(seed, newcomers, work) if kept else run_seed(seed, newcomers, work)
        for cell in cells():
            if cell.name in known:
                outcomes[cell][seed] = Outcome(**known[cell.name])
        outcomes[Cell("source", "backdoor", 0.3, "off")][seed] = Outcome(
            accuracy=0, trigger_rate=known["trigger"], liars_share=1
        )
    write_summary(HERE / "results", figures(outcomes))
    Console(width=120).print(table(outcomes))


def run_seed(seed: int, newcomers: int, work: Path) -> dict[str, Any]:
    """The outcomes of one seed by cell; those that an earlier call finished are kept."""
    known = kept_outcomes(seed, newcomers, work)
    missing = [cell for cell in cells() if cell.name not in known]
    if missing:
        config = with_settings(ExpansionConfig(seed=seed, comparisons=()), SETTINGS)
        with tempfile.TemporaryDirectory() as folder:
            village = Village(config, Path(folder), 14, 6, newcomers)
            known["trigger"] = village.backdoor_works()
            for cell in missing:
                known[cell.name] = asdict(run(village, cell))
                kept_file(seed, newcomers, work).write_text(json.dumps(known, indent=1), "utf-8")
                console.print(f"seed {seed} {cell.name}: {known[cell.name]}", highlight=False)
    return known


def kept_file(seed: int, newcomers: int, work: Path) -> Path:
    """Where the outcomes of one seed are kept."""
    return work / f"seed-{seed}-{newcomers}.json"


def kept_outcomes(seed: int, newcomers: int, work: Path) -> dict[str, Any]:
    """The outcomes of one seed that are there."""
    path = kept_file(seed, newcomers, work)
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def run(village: Village, cell: Cell) -> Outcome:
    """All newcomers of one seed by one cell."""
    config = replace(village.config, method=cell.method, trust=DEFENCES[cell.defence])
    if cell.attack == "clean":
        return village.expand(village.clean, (), config)
    liars = village.liars(cell.share)
    return village.expand(village.attacked(cell.attack, cell.share), liars, config)


def figures(outcomes: Outcomes) -> dict[str, Any]:
    """Points of accuracy lost against the same method clean and undefended, and trigger rates."""
    told: dict[str, Any] = {}
    for cell, by_seed in outcomes.items():
        found, seeds = list(by_seed.values()), list(by_seed)
        accuracy = 100 * np.mean([each.accuracy for each in found])
        if cell.method == "source":
            rate = 100 * np.mean([each.trigger_rate for each in found])
            told["poison/backdoor/in-the-sources-themselves"] = figure(
                rate, "%", "above 50", COMMAND, seeds
            )
            continue
        name = f"poison/{cell.name}"
        told[f"{name}/accuracy"] = figure(accuracy, "%", None, COMMAND, seeds)
        if cell.attack != "clean":
            clean = outcomes[Cell(cell.method, "clean", 0, "off")]
            lost = 100 * np.mean([clean[s].accuracy - by_seed[s].accuracy for s in by_seed])
            target = "at most 1" if cell.defence == "on" else None
            told[f"{name}/lost"] = figure(lost, "points", target, COMMAND, seeds)
        if cell.attack in ("clean", "backdoor"):
            rate = 100 * np.mean([each.trigger_rate for each in found])
            told[f"{name}/trigger-rate"] = figure(rate, "%", None, COMMAND, seeds)
    return told


def table(outcomes: Outcomes) -> Table:
    """Accuracy by method, attack and defence."""
    shown = Table("Method, attack", *DEFENCES)
    rows: dict[str, dict[str, str]] = defaultdict(dict)
    for cell, by_seed in outcomes.items():
        found = by_seed.values()
        mean = 100 * np.mean([each.accuracy for each in found])
        liars = np.mean([each.liars_share for each in found])
        rows[cell.name.rpartition("/")[0]][cell.defence] = f"{mean:.1f} ({liars:.0%})"
    for name, row in rows.items():
        shown.add_row(name, *(row.get(defence, "") for defence in DEFENCES))
    return shown


if __name__ == "__main__":
    typer.run(main)
