"""The benchmark matrix with listed target domains, and its figures."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from graft.bench import MatrixSettings, compute_matrix
from graft.bench.figures_file import figure
from graft.bench.plan import MatrixPlan
from graft.bench.rows import BenchmarkRow
from graft.cli.shared import file_progress
from graft.core.config import ExpansionConfig, WorldConfig
from graft.core.plugins import load_references
from graft.data.domain import World

# From a set's name, its world and a seed to its initial domains and its target domains.
Schedule = Callable[[str, World, int], tuple[tuple[str, ...], tuple[str, ...]]]


def left_out(name: str, world: World, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of a set called SET-PERSON: that person's domains are the targets, all others' initial; each
    seed begins with two other targets."""
    person = name.partition("-")[2]
    targets = tuple(d for d in world.domain_ids if world.person(d) == person)
    first = 2 * seed % len(targets)
    initial = tuple(d for d in world.domain_ids if d not in targets)
    return initial, targets[first:] + targets[:first]


@dataclass(frozen=True, kw_only=True)
class ListedPlan(MatrixPlan):
    """A matrix whose initial domains and target domains are what ``schedule`` lists; the seed draws
    labelled rows, devices and first weights."""

    schedule: Schedule = left_out

    def _schedule(
        self, name: str, world: World, config: ExpansionConfig
    ) -> tuple[tuple[str, ...], ...]:
        return self.schedule(name, world, config.seed)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One method at one gamma: means over all targets and seeds, and the main method's gain over
    it with a 95 % interval of Student's t over the seeds' paired means."""

    accuracy: float
    bytes_down: float
    bytes_up: float
    device_s: float
    gain: float
    low: float
    high: float
    failed: int


def run_listed(
    folders: Mapping[str, Path],
    schedule: Schedule,
    config: ExpansionConfig,
    *,
    methods: Sequence[str],
    gammas: Sequence[float],
    seeds: Sequence[int],
    targets: int,
    out: Path,
    work: Path,
) -> list[BenchmarkRow]:
    """The rows of every method on the sets of these names, kept in ``out``."""
    load_references(config.plug_ins)
    plan = ListedPlan(
        worlds={
            name: WorldConfig(kind="folder", path=str(folder.absolute()))
            for name, folder in folders.items()
        },
        config=config,
        methods=tuple(methods),
        gammas=tuple(gammas),
        seeds=tuple(seeds),
        targets=targets,
        work=work,
        schedule=schedule,
    )
    keys = plan.row_keys()
    with file_progress() as progress:
        # Within this process, which alone has loaded the architectures.
        settings = MatrixSettings(out=out, workers=0, progress=progress)
        return [row for row in compute_matrix(plan, settings) if row.key in keys]


def method_figures(rows: Sequence[BenchmarkRow], main: str) -> Mapping[tuple[float, str], Figures]:
    """The figures of every gamma and method."""
    tables: dict[tuple[float, str], dict[Any, BenchmarkRow]] = defaultdict(dict)
    for row in rows:
        tables[row.gamma, row.method][row.data, row.seed, row.domain_id] = row
    figures = {}
    for (gamma, method), table in tables.items():
        sound = {key: row for key, row in table.items() if row.accuracy is not None}
        gains: dict[int, list[float]] = defaultdict(list)
        for key, row in sound.items():
            other = tables[gamma, main].get(key)
            if other is not None and other.accuracy is not None and row.accuracy is not None:
                gains[row.seed].append(other.accuracy - row.accuracy)
        low, high = interval([float(np.mean(each)) for each in gains.values()])
        every = [gain for each in gains.values() for gain in each]
        figures[gamma, method] = Figures(
            accuracy=_mean([row.accuracy for row in sound.values()]),
            bytes_down=_mean([row.bytes_down for row in sound.values()]),
            bytes_up=_mean([row.bytes_up for row in sound.values()]),
            device_s=_mean([row.device_s for row in sound.values()]),
            gain=_mean(every),
            low=low,
            high=high,
            failed=len(table) - len(sound),
        )
    return figures


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean by Student's t; NaN for fewer than two values."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def gain_records(
    figures: Mapping[tuple[float, str], Figures],
    name: str,
    main: str,
    command: str,
    seeds: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """The summary's records of every gamma and method: accuracy, and the main method's gain."""
    records = {}
    for (gamma, method), each in figures.items():
        key = f"{name}/gamma={gamma:g}/{method}"
        records[f"{key}/accuracy"] = figure(each.accuracy, "share", None, command, seeds)
        records[f"{key}/bytes"] = figure(
            each.bytes_down + each.bytes_up, "bytes a target", None, command, seeds
        )
        if method not in (main, "all-labels"):
            for part, value in (("", each.gain), (", low", each.low), (", high", each.high)):
                records[f"{key}/{main} gains{part}"] = figure(
                    100 * value,
                    "points",
                    "above 0, or its interval holds 0" if not part else None,
                    command,
                    seeds,
                )
    return records


def table_lines(figures: Mapping[tuple[float, str], Figures], main: str) -> list[str]:
    """A Markdown table a gamma, the most accurate method first."""
    lines: list[str] = []
    for gamma in sorted({gamma for gamma, _ in figures}):
        lines += ["", f"gamma {gamma:g}", "",
                  f"| method | accuracy | {main} gains | 95 % interval | kB down | kB up | s |",
                  "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
        of_gamma = {method: each for (g, method), each in figures.items() if g == gamma}
        for method, each in sorted(of_gamma.items(), key=lambda item: -item[1].accuracy):
            gain = "" if method == main else f"{100 * each.gain:+.2f}"
            span = "" if method == main else f"{100 * each.low:+.2f} to {100 * each.high:+.2f}"
            lines.append(
                f"| {method} | {100 * each.accuracy:.2f} | {gain} | {span} | "
                f"{each.bytes_down / 1e3:.0f} | {each.bytes_up / 1e3:.0f} | {each.device_s:.2f} |"
            )
    return lines


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")
