"""Several runs on one page: accuracy and cost of each, and the settings that differ."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from graft.core.config_files import config_to_dict
from graft.errors import RunError
from graft.report.figures.accuracy import accuracy_per_round
from graft.report.figures.pareto import accuracy_against_bytes
from graft.report.formatting import NOT_RUN, REFERENCES, display_name, percent_text, points_text
from graft.report.page.render import flat_rows, page_figure, render
from graft.report.run import RunRecord
from graft.report.summary import (
    MethodSummary,
    RoundSummary,
    finished_accuracies,
    mean_interval,
    mean_or_none,
    summarise,
    summarise_rounds,
)

# More names would cover the figure.
_MOST_NAMED = 16
_MOST_CHANGES = 12
_ABSENT = "not set"


def comparison_page(runs: Sequence[RunRecord]) -> str:
    """The page of several runs in their order; raises RunError for fewer than two."""
    if len(runs) < 2:
        raise RunError(f"comparison: got {len(runs)} runs, wanted at least 2")
    names = run_names(runs)
    summaries = [summarise(run.rows, run.ledger, run.config) for run in runs]
    rounds, costs = _rounds(runs, names), _costs(names, summaries)
    return render(
        "comparison.html.j2",
        title="graft: " + ", ".join(names),
        names=names,
        runs=[
            {"record": run, "summaries": each} for run, each in zip(runs, summaries, strict=True)
        ],
        accuracies=_accuracies(summaries),
        change=_change(*runs) if len(runs) == 2 else None,
        figures={
            "accuracy": page_figure(lambda canvas: accuracy_per_round(rounds, canvas)),
            "bytes": page_figure(
                lambda canvas: accuracy_against_bytes(costs, canvas, owner="a target domain")
            ),
        },
        settings=_differences(runs),
    )


def run_names(runs: Sequence[RunRecord]) -> list[str]:
    """The runs' ids, numbered where two are the same."""
    ids = [str(run.run.get("id", "run")) for run in runs]
    return [
        name if ids.count(name) == 1 else f"{name} ({ids[: at + 1].count(name)})"
        for at, name in enumerate(ids)
    ]


def _accuracies(summaries: Sequence[Sequence[MethodSummary]]) -> list[list[str]]:
    methods = dict.fromkeys(each.method for run in summaries for each in run)
    rows = []
    for method in methods:
        cells = [display_name(method)]
        for run in summaries:
            found = next((each for each in run if each.method == method), None)
            if found is None:
                cells.append(NOT_RUN)
                continue
            share = "" if found.complete else f" ({found.count_label})"
            cells.append(percent_text(found.accuracy_mean) + share)
        rows.append(cells)
    return rows


def _change(before: RunRecord, after: RunRecord) -> dict[str, Any]:
    """How the second run's method differs on the target domains that both runs finished."""
    old, new = (finished_accuracies(run.rows, run.config.method) for run in (before, after))
    differences = {target: new[target] - old[target] for target in sorted(old.keys() & new.keys())}
    values = list(differences.values())
    largest = sorted(differences, key=lambda target: (-abs(differences[target]), target))
    return {
        "pairs": len(values),
        "mean": mean_or_none(values),
        "interval": mean_interval(values),
        "better": sum(value > 0 for value in values),
        "worse": sum(value < 0 for value in values),
        "rows": [
            (f"{domain} (round {index})", percent_text(old[index, domain]),
             percent_text(new[index, domain]), points_text(differences[index, domain]))
            for index, domain in largest[:_MOST_CHANGES]
            if differences[index, domain]
        ],
    }  # fmt: skip


def _rounds(runs: Sequence[RunRecord], names: Sequence[str]) -> list[RoundSummary]:
    """Each run's own method under the run's name; a figure names an unknown method as it is."""
    return [
        dataclasses.replace(each, method=name)
        for run, name in list(zip(runs, names, strict=True))[:_MOST_NAMED]
        for each in summarise_rounds(run.rows, run.config)
        if each.method == run.config.method
    ]


def _costs(
    names: Sequence[str], summaries: Sequence[Sequence[MethodSummary]]
) -> list[MethodSummary]:
    """The own methods first, then as many others as can be named; bytes of one target domain."""
    pairs = list(zip(summaries, names, strict=True))
    named = [(run[0], name) for run, name in pairs]
    named += [
        (each, name) for run, name in pairs for each in run[1:] if each.method not in REFERENCES
    ]
    return [
        dataclasses.replace(
            each,
            method=f"{name}: {display_name(each.method)}",
            bytes_down=round(each.bytes_down / max(1, each.wanted)),
        )
        for each, name in named[:_MOST_NAMED]
    ]


def _differences(runs: Sequence[RunRecord]) -> list[list[str]]:
    tables = [_settings(run) for run in runs]
    rows = [
        [key, *(table.get(key, _ABSENT) for table in tables)]
        for key in sorted({key for table in tables for key in table})
    ]
    return [row for row in rows if len(set(row[1:])) > 1]


def _settings(run: RunRecord) -> Mapping[str, str]:
    tables: dict[str, Any] = {**config_to_dict(run.config), "versions": dict(run.versions)}
    return dict(flat_rows(tables))
