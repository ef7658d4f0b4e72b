"""Several runs on one page: accuracy and cost of each, and the settings that differ."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from graft.core.config import config_to_dict
from graft.errors import RunError
from graft.report.figures.accuracy import accuracy_per_round
from graft.report.figures.pareto import accuracy_against_bytes
from graft.report.formatting import (
    ALL_LABELS,
    NONE,
    NOT_RUN,
    bytes_text,
    display_name,
    interval_text,
    percent_text,
    points_text,
    seconds_text,
)
from graft.report.page.render import PageTable, flat_rows, page_figure, render
from graft.report.run import RunRecord
from graft.report.summary import MethodSummary, RoundSummary, summarise, summarise_rounds

# More names would cover the figure.
_MOST_NAMED = 16
_ABSENT = "not set"


def comparison_page(runs: Sequence[RunRecord]) -> str:
    """The page of several runs in their order, each with its own method.

    Raises
    ------
    RunError
        For fewer than two runs.
    """
    if len(runs) < 2:
        raise RunError(f"comparison: got {len(runs)} runs, wanted at least 2")
    names = run_names(runs)
    summaries = [summarise(run.rows, run.ledger, run.config) for run in runs]
    figures = [
        page_figure(
            "Accuracy per round",
            "Each run's own method: mean over the target domains of each round, with the 95 % "
            "interval of the mean. Runs of other worlds, seeds or rounds hold other target "
            "domains.",
            lambda canvas: accuracy_per_round(_rounds(runs, names), canvas),
        ),
        page_figure(
            "Accuracy against bytes",
            "Payload bytes down a target domain that each method was charged. Ringed: the Pareto "
            "front of these runs together.",
            lambda canvas: accuracy_against_bytes(
                _costed(names, summaries), canvas, whose="a target domain"
            ),
        ),
    ]
    return render(
        "comparison.html.j2",
        "graft: " + ", ".join(names),
        count=len(runs),
        overview=_overview(runs, names, summaries),
        accuracies=_accuracies(names, summaries),
        figures=figures,
        settings=_differences(runs, names),
    )


def run_names(runs: Sequence[RunRecord]) -> list[str]:
    """The runs' ids, numbered where two are the same."""
    ids = [str(run.run.get("id", "run")) for run in runs]
    return [
        name if ids.count(name) == 1 else f"{name} ({ids[: at + 1].count(name)})"
        for at, name in enumerate(ids)
    ]


def _overview(
    runs: Sequence[RunRecord], names: Sequence[str], summaries: Sequence[Sequence[MethodSummary]]
) -> PageTable:
    columns = []
    for run, (main, *others) in zip(runs, summaries, strict=True):
        failed = [each for each in (main, *others) if not each.complete]
        columns.append(
            [
                str(run.run.get("status", "unknown")),
                str(run.world.get("name", run.config.world.kind)),
                str(run.run.get("seed", run.config.seed)),
                f"{run.config.rounds:,}",
                display_name(main.method),
                main.count_label,
                percent_text(main.accuracy_mean),
                interval_text(main.accuracy_interval),
                points_text(main.gain_mean),
                percent_text(main.worst_accuracy),
                bytes_text(main.bytes_down),
                bytes_text(main.bytes_up),
                NOT_RUN if main.ship_all_share is None else percent_text(main.ship_all_share),
                seconds_text(main.device_s_total),
                ", ".join(f"{display_name(e.method)} {e.count_label}" for e in failed) or "nothing",
                str(run.run.get("hash", ""))[:12] or NONE,
            ]
        )
    heads = (
        "Status", "World", "Seed", "Rounds", "Method", "Target domains finished", "Mean accuracy",
        "95 % interval", "Gain over label-only, points", "Worst target domain", "Payload down",
        "Payload up", "Of ship-all's bytes", "Measured device time", "Incomplete", "Hash",
    )  # fmt: skip
    rows = [[head, *cells] for head, *cells in zip(heads, *columns, strict=True)]
    return PageTable(headings=("", *names), rows=rows)


def _accuracies(names: Sequence[str], summaries: Sequence[Sequence[MethodSummary]]) -> PageTable:
    methods = list(dict.fromkeys(each.method for run in summaries for each in run))
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
    return PageTable(headings=("Method", *names), rows=rows)


def _rounds(runs: Sequence[RunRecord], names: Sequence[str]) -> list[RoundSummary]:
    """Each run's own method under the run's name; a figure names an unknown method as it is."""
    return [
        dataclasses.replace(each, method=name)
        for run, name in list(zip(runs, names, strict=True))[:_MOST_NAMED]
        for each in summarise_rounds(run.rows, run.config)
        if each.method == run.config.method
    ]


def _costed(
    names: Sequence[str], summaries: Sequence[Sequence[MethodSummary]]
) -> list[MethodSummary]:
    """The own methods first, then as many others as can be named; bytes of one target domain."""
    pairs = list(zip(summaries, names, strict=True))
    named = [(run[0], name) for run, name in pairs]
    named += [(each, name) for run, name in pairs for each in run[1:] if each.method != ALL_LABELS]
    return [
        dataclasses.replace(
            each,
            method=f"{name}: {display_name(each.method)}",
            bytes_down=round(each.bytes_down / max(1, each.wanted)),
        )
        for each, name in named[:_MOST_NAMED]
    ]


def _differences(runs: Sequence[RunRecord], names: Sequence[str]) -> PageTable:
    tables = [_settings(run) for run in runs]
    keys = sorted({key for table in tables for key in table})
    rows = [
        [key, *(table.get(key, _ABSENT) for table in tables)]
        for key in keys
        if len({table.get(key, _ABSENT) for table in tables}) > 1
    ]
    return PageTable(headings=("Setting", *names), rows=rows)


def _settings(run: RunRecord) -> Mapping[str, str]:
    tables: dict[str, Any] = {**config_to_dict(run.config), "versions": dict(run.versions)}
    return dict(flat_rows(tables))
