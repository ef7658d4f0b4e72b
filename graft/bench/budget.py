"""Accuracy against a budget: the same targets served within several limits, in three ways.

graft's own method with its selection, the same with candidates and sources drawn at random, and
HaT-style fusion, each planned within the limit.
"""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from graft.bench.figures import accuracy_lines
from graft.bench.figures_file import figure, write_summary
from graft.bench.tables import Grid
from graft.core.config import ExpansionConfig, WorldConfig
from graft.core.config_files import with_settings
from graft.core.files import replace_file
from graft.core.ledger import is_upload
from graft.core.outputs import fresh_folder
from graft.core.tables import read_ledger, read_table
from graft.errors import ExpansionFailedError
from graft.report.formatting import bytes_text, percent_text, seconds_text
from graft.report.summary import Interval, mean_interval

LIMITS: Final = ("down_bytes", "up_bytes", "device_s", "memory_bytes")
RANDOM: Final = "at random"
WAYS: Final = {"graft": "graft", RANDOM: "graft, sources at random", "hat": "HaT-style"}


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetPoint:
    """What one way reached within one limit: over ``seeds`` of ``targets`` in all.

    ``used`` is the most that a target used, ``above`` the number of targets that used more than the
    limit, ``unserved`` of those that not even training without sources fits.
    """

    data: str
    limit: str
    value: float
    way: str
    targets: int
    unserved: int
    used: float
    above: int
    accuracies: tuple[float, ...]

    @property
    def accuracy_mean(self) -> float | None:
        """Mean over the seeds."""
        return statistics.fmean(self.accuracies) if self.accuracies else None

    @property
    def accuracy_interval(self) -> Interval | None:
        """Student's t over the seeds, 95 %."""
        return mean_interval(self.accuracies)


def sweep_budget(
    worlds: Mapping[str, WorldConfig],
    config: ExpansionConfig,
    limit: str,
    values: Sequence[float],
    seeds: int,
    *,
    simulate: Callable[[ExpansionConfig, Path], None],
    work: Path,
    progress: Callable[[str], None],
) -> list[BudgetPoint]:
    """Serve every set's targets within each value of a limit. Finished runs are kept in ``work``.

    ``simulate(config, folder)`` carries out one run; a target that fails is a row with its error.
    """
    points = []
    for data, world in worlds.items():
        for value in values:
            rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for seed in range(seeds):
                path = work / f"{data}-{limit}-{value:g}-{seed}.json"
                if not path.exists():
                    run = work / path.stem
                    own = replace(config, world=world, seed=seed)
                    found = _serve(own, limit, value, run, simulate)
                    replace_file(path, json.dumps(found).encode())
                for way, row in json.loads(path.read_text("utf-8")).items():
                    rows[way].append(row)
                progress(f"{data}, {limit} {value:g}, seed {seed}")
            points += [_point(data, limit, value, way, rows[way]) for way in WAYS]
    return points


def _serve(
    config: ExpansionConfig,
    limit: str,
    value: float,
    folder: Path,
    simulate: Callable[[ExpansionConfig, Path], None],
) -> dict[str, dict[str, Any]]:
    """One seed's figures of each way."""
    size = value if limit == "device_s" else int(value)
    wanted: dict[str, Any] = {
        f"budget.{limit}": size,
        "rounds": 1,
        "comparisons": [],
        "method": "graft",
    }
    settings = with_settings(config, wanted)
    found = {}
    for run_name, changes, method_of in (
        ("ranked", {"comparisons": ["hat"]}, {"graft": "graft", "hat": "hat"}),
        ("random", {"selection.score": "random"}, {RANDOM: "graft"}),
    ):
        run = folder / run_name
        fresh_folder(run)
        with suppress(ExpansionFailedError):  # no training fits: a row with its error
            simulate(with_settings(settings, changes), run)
        for way, method in method_of.items():
            found[way] = _measured(run, method, limit, value)
    return found


def _measured(folder: Path, method: str, limit: str, value: float) -> dict[str, Any]:
    """Accuracy, and what each target used of the limit: bytes by the ledger, join included."""
    results = read_table(folder / "results.parquet").to_pylist()
    rows = [r for r in results if r["method"] == method and r["round_index"]]
    used: dict[str, float] = {row["domain_id"]: 0.0 for row in rows}
    if limit.endswith("_bytes") and limit != "memory_bytes":
        for entry in read_ledger(folder / "ledger.parquet"):
            of_method = entry.method in ("", method) and entry.domain_id in used
            if of_method and is_upload(entry) == (limit == "up_bytes"):
                used[entry.domain_id] += entry.payload_bytes
    else:
        column = "simulated_compute_s" if limit == "device_s" else "peak_memory_bytes"
        used = {row["domain_id"]: row[column] or 0.0 for row in rows}
    accuracies = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    return {
        "targets": len(rows),
        "unserved": len(rows) - len(accuracies),
        "accuracy": statistics.fmean(accuracies) if accuracies else None,
        "used": max(used.values(), default=0.0),
        "above": sum(each > value for each in used.values()),
    }


def _point(
    data: str, limit: str, value: float, way: str, rows: Sequence[Mapping[str, Any]]
) -> BudgetPoint:
    return BudgetPoint(
        data=data,
        limit=limit,
        value=value,
        way=way,
        targets=sum(row["targets"] for row in rows),
        unserved=sum(row["unserved"] for row in rows),
        used=max(row["used"] for row in rows),
        above=sum(row["above"] for row in rows),
        accuracies=tuple(row["accuracy"] for row in rows if row["accuracy"] is not None),
    )


def value_text(limit: str, value: float) -> str:
    """A limit's value for people."""
    return seconds_text(value) if limit == "device_s" else bytes_text(int(value))


def budget_grid(points: Sequence[BudgetPoint]) -> Grid:
    """A row a limit, a column a way."""
    rows = []
    for data, value in dict.fromkeys((p.data, p.value) for p in points):
        own = {p.way: p for p in points if (p.data, p.value) == (data, value)}
        cells = [percent_text(own[w].accuracy_mean, digits=1) for w in WAYS]
        used = max(p.used for p in own.values())
        unserved = sum(p.unserved for p in own.values())
        sizes = [value_text(points[0].limit, each) for each in (value, used)]
        rows.append((data, sizes[0], *cells, sizes[1], str(unserved)))
    return Grid(
        title=f"Accuracy by {points[0].limit}",
        headings=("data", "limit", *WAYS.values(), "most used", "not served"),
        rows=tuple(rows),
    )


def budget_svg(points: Sequence[BudgetPoint]) -> str:
    """Accuracy of each way against the limit, of one set and one limit."""
    data, limit = points[0].data, points[0].limit
    ticks = {p.value: (math.log10(p.value), value_text(limit, p.value)) for p in points}
    return accuracy_lines(
        {
            way: [(ticks[p.value][0], p) for p in points if p.way == way and p.accuracies]
            for way in WAYS
            if any(p.way == way and p.accuracies for p in points)
        },
        ticks=list(ticks.values()),
        names=dict(WAYS),
        main="graft",
        x_label=f"budget.{limit} of a target domain (log scale)",
        title=f"Accuracy by {limit} on {data}",
    )


def write_budget_report(points: Sequence[BudgetPoint], out: Path, command: str) -> Path:
    """Figures, ``budget.json`` and ``summary.json`` in ``out``; the path of the last.

    Points of other sets, limits and values stay in ``budget.json``.
    """
    path = out / "budget.json"
    table = json.loads(path.read_text("utf-8")) if path.exists() else []
    mine = {(p.data, p.limit) for p in points}
    table = [row for row in table if (row["data"], row["limit"]) not in mine]
    replace_file(path, (json.dumps([*table, *map(asdict, points)], indent=1) + "\n").encode())
    figures = {}
    for data, limit in sorted(mine):
        own = [p for p in points if (p.data, p.limit) == (data, limit)]
        replace_file(out / f"{data}-{limit}.svg", budget_svg(own).encode())
        best = {p.value: p.accuracy_mean for p in own if p.way == "graft"}
        for p in own:
            key = f"budget/{data}/{limit}/{p.value:g}/{p.way}"
            seeds = range(len(p.accuracies))
            figures[f"{key}/targets above"] = figure(p.above, "targets", "<= 0", command, seeds)
            if p.accuracy_mean is not None:
                mean = 100 * p.accuracy_mean
                figures[f"{key}/accuracy"] = figure(mean, "%", None, command, seeds)
            ours = best[p.value]
            if p.way != "graft" and p.accuracy_mean is not None and ours is not None:
                gain = 100 * (ours - p.accuracy_mean)
                figures[f"{key}/graft gains"] = figure(gain, "points", "> 0", command, seeds)
    return write_summary(out, figures)
