"""The benchmark matrix with chosen people as target domains: each of them is left out once."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from graft.bench import MatrixSettings, compute_matrix
from graft.bench.plan import Expansion, MatrixPlan, _row_config
from graft.bench.rows import BenchmarkRow
from graft.core.config import ExpansionConfig, WorldConfig
from graft.core.plugins import load_references
from graft.core.ports import Progress
from graft.data.folder import FolderWorld
from graft.data.worlds import open_world


@dataclass(frozen=True, kw_only=True)
class FoldPlan(MatrixPlan):
    """A matrix whose ``worlds`` are named SET-PERSON: that person's domains are the targets, and
    all others' are initial domains. The seed draws labelled rows, devices and first weights."""

    def _expansions(self) -> Iterator[Expansion]:
        for seed, (name, world_config) in product(self.seeds, self.worlds.items()):
            left_out = name.partition("-")[2]
            world = open_world(world_config, seed)
            arriving = tuple(d for d in world.domain_ids if world.person(d) == left_out)
            initial = tuple(d for d in world.domain_ids if world.person(d) != left_out)
            config = replace(self.config, seed=seed, world=world_config, rounds=1)
            for gamma, method in product(self.gammas, self.methods):
                for num_sources in self._sources_of(method):
                    yield Expansion(
                        initial_training=self._initial_training(name, config, method, initial),
                        config=_row_config(config, gamma, num_sources, method),
                        domain_ids=arriving[: self.targets],
                        scratch=self.scratch,
                        config_digest=self.config_digest(method),
                    )


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


def run_folds(
    folder: Path,
    name: str,
    people: Sequence[str],
    methods: Sequence[str],
    gammas: Sequence[float],
    seeds: Sequence[int],
    config: ExpansionConfig,
    *,
    out: Path,
    work: Path,
    targets: int,
    progress: Progress,
) -> list[BenchmarkRow]:
    """The rows of every method with each of ``people`` left out, kept in ``out``."""
    world = WorldConfig(kind="folder", path=str(folder.absolute()))
    known = {FolderWorld(folder).person(d) for d in FolderWorld(folder).domain_ids}
    plan = FoldPlan(
        worlds={f"{name}-{person}": world for person in people or sorted(known)},
        config=config,
        methods=tuple(methods),
        gammas=tuple(gammas),
        seeds=tuple(seeds),
        targets=targets,
        work=work,
    )
    load_references(config.plug_ins)
    # Within this process, which alone has loaded the architectures.
    settings = MatrixSettings(out=out, workers=0, progress=progress)
    keys = plan.row_keys()
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
