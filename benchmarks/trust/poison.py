"""What do lying sources do to target domains, and what does each defence against them change?

    python benchmarks/trust/poison.py

The same honest initial domains with and without liars beside them, 10 % or 30 % of all sources.
Each attack is met with every defence off, all on, and at 30 % the defaults; three of them know the
defences. Everything runs in this process on one thread. Each cell of each seed is written to
results/poison as it ends, and is not run again.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
from summary import figure, write_summary
from system import ADAPTIVE, ATTACKS, Outcome, Village

from graft.core.config import ExpansionConfig, TrustConfig
from graft.core.config_files import with_settings

HERE = Path(__file__).resolve().parent
RAW = HERE / "results" / "poison"
COMMAND = "python benchmarks/trust/poison.py"
SHARES = (0.1, 0.3)
DEFENCES = {
    "off": TrustConfig(verify=False),
    "on": TrustConfig(verify=True, disagreement=True, max_source_weight=0.4),
    "default": TrustConfig(),
}
METHODS = ("graft", "best-source", "hat")
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


def cells(methods: Collection[str]) -> Iterator[Cell]:
    """Every cell of these methods; the slower one has 30 % alone."""
    if "graft" in methods:
        for defence in DEFENCES:
            yield Cell("graft", "clean", 0, defence)
        for defence in DEFENCES:
            for attack in (*ADAPTIVE, *ATTACKS):
                for share in SHARES if defence in ("off", "on") else (0.3,):
                    yield Cell("graft", attack, share, defence)
    if "hat" in methods:
        for defence in ("off", "on"):
            yield Cell("hat", "clean", 0, defence)
            for attack in (*ATTACKS, *ADAPTIVE):
                yield Cell("hat", attack, 0.3, defence)
    if "best-source" in methods:
        # The backdoor must be there to be found harmless: a source as it stands has it.
        yield Cell("best-source", "clean", 0, "off")
        yield Cell("best-source", "backdoor", 0.3, "off")


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, from 0.")] = 8,
    targets: Annotated[int, typer.Option(min=1, help="Target domains a seed.")] = 8,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    attack: Annotated[list[str] | None, typer.Option(help="Only these attacks, and clean.")] = None,
    work: Annotated[Path, typer.Option(help="Each seed's outcomes, cell by cell.")] = RAW,
    kept: Annotated[bool, typer.Option(help="Run nothing: tell what is kept so far.")] = False,
) -> None:
    """Run what is missing, then write results/summary.json."""
    work.mkdir(parents=True, exist_ok=True)
    outcomes: Outcomes = defaultdict(dict)
    for seed in range(seeds):
        known = (
            kept_outcomes(seed, targets, work)
            if kept
            else run_seed(seed, targets, method or METHODS, attack or (), work)
        )
        for cell in cells(METHODS):
            if cell.name in known:
                outcomes[cell][seed] = Outcome(**known[cell.name])
        if "trigger" in known:
            outcomes[Cell("source", "backdoor", 0.3, "off")][seed] = Outcome(
                accuracies=[], trigger_rate=known["trigger"], liars_share=1
            )
    # A cell counts once every seed has it.
    outcomes = {cell: by_seed for cell, by_seed in outcomes.items() if len(by_seed) == seeds}
    write_summary(HERE / "results", figures(outcomes))
    Console(width=120).print(table(outcomes))


def run_seed(
    seed: int, targets: int, methods: Collection[str], attacks: Collection[str], work: Path
) -> dict[str, Any]:
    """The outcomes of one seed by cell; those that an earlier call finished are kept."""
    known = kept_outcomes(seed, targets, work)
    wanted = [c for c in cells(methods) if not attacks or c.attack in {"clean", *attacks}]
    missing = [cell for cell in wanted if cell.name not in known]
    if missing:
        config = with_settings(ExpansionConfig(seed=seed, comparisons=()), SETTINGS)
        with tempfile.TemporaryDirectory() as folder:
            village = Village(config, Path(folder), 14, 6, targets)
            if "trigger" not in known and (not attacks or "backdoor" in attacks):
                known["trigger"] = village.backdoor_works()
            for cell in missing:
                began_s = time.process_time()
                known[cell.name] = asdict(run(village, cell))
                spent_s = time.process_time() - began_s
                kept_file(seed, targets, work).write_text(json.dumps(known, indent=1), "utf-8")
                found = known[cell.name]
                console.print(f"seed {seed} {cell.name}: {spent_s:.0f} s, {found}", highlight=False)
    return known


def kept_file(seed: int, targets: int, work: Path) -> Path:
    """Where the outcomes of one seed are kept."""
    return work / f"seed-{seed}-{targets}.json"


def kept_outcomes(seed: int, targets: int, work: Path) -> dict[str, Any]:
    """The outcomes of one seed that are there."""
    path = kept_file(seed, targets, work)
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def run(village: Village, cell: Cell) -> Outcome:
    """All target domains of one seed by one cell."""
    config = replace(village.config, method=cell.method, trust=DEFENCES[cell.defence])
    if cell.attack == "clean":
        return village.expand(village.clean, (), config)
    liars = village.liars(cell.share)
    return village.expand(village.attacked(cell.attack, cell.share), liars, config)


def figures(outcomes: Outcomes) -> dict[str, Any]:
    """Points of accuracy lost against the same method clean and undefended, target by target,
    the standard error of their mean, and trigger rates."""
    told: dict[str, Any] = {}
    for cell, by_seed in outcomes.items():
        found, seeds = list(by_seed.values()), list(by_seed)
        rate = 100 * np.mean([each.trigger_rate for each in found])
        if cell.method == "source":
            name = "poison/backdoor/in-the-sources-themselves"
            told[name] = figure(rate, "%", "above 50", COMMAND, seeds)
            continue
        name = f"poison/{cell.name}"
        accuracy = 100 * np.mean([each.accuracies for each in found])
        told[f"{name}/accuracy"] = figure(accuracy, "%", None, COMMAND, seeds)
        if cell.attack != "clean" or cell.defence != "off":
            clean = outcomes[Cell(cell.method, "clean", 0, "off")]
            lost = 100 * np.concatenate(
                [np.subtract(clean[s].accuracies, by_seed[s].accuracies) for s in by_seed]
            )
            target = "at most 1" if cell.defence == "on" else None
            told[f"{name}/lost"] = figure(lost.mean(), "points", target, COMMAND, seeds)
            error = lost.std(ddof=1) / np.sqrt(len(lost))
            told[f"{name}/lost-error"] = figure(error, "points", None, COMMAND, seeds)
        if cell.attack in ("clean", "backdoor"):
            told[f"{name}/trigger-rate"] = figure(rate, "%", None, COMMAND, seeds)
        betrayed = [each.betrayed_rate for each in found if each.betrayed_rate is not None]
        if betrayed and cell.attack in ("clean", "one-class"):
            told[f"{name}/betrayed-rate"] = figure(
                100 * np.mean(betrayed), "%", None, COMMAND, seeds
            )
        told[f"{name}/liars-share"] = figure(
            100 * np.mean([each.liars_share for each in found]), "%", None, COMMAND, seeds
        )
    return told


def table(outcomes: Outcomes) -> Table:
    """Accuracy by method, attack and defence."""
    shown = Table("Method, attack", *DEFENCES)
    rows: dict[str, dict[str, str]] = defaultdict(dict)
    for cell, by_seed in outcomes.items():
        found = [each for each in by_seed.values() if each.accuracies]
        mean = 100 * np.mean([each.accuracies for each in found]) if found else 0.0
        liars = np.mean([each.liars_share for each in by_seed.values()])
        rows[cell.name.rpartition("/")[0]][cell.defence] = f"{mean:.1f} ({liars:.0%})"
    for name, row in rows.items():
        shown.add_row(name, *(row.get(defence, "") for defence in DEFENCES))
    return shown


if __name__ == "__main__":
    typer.run(main)
