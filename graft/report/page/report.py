"""The one-file HTML report of a run.

The summary and the figures are drawn here; a small script draws the table of domains and a
domain's own view from the columns in the page.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.compute as pc

from graft.core.config_files import config_to_dict
from graft.core.files import AnyPath, replace_file
from graft.report import growth
from graft.report.figures.accuracy import accuracy_per_round, domain_gains_figure
from graft.report.figures.canvas import Canvas
from graft.report.figures.pareto import accuracy_against_bytes
from graft.report.figures.traffic import bytes_by_phase, bytes_by_round, time_by_device_class
from graft.report.figures.transfer_graph import transfer_figure, transfer_words, transfers_by_round
from graft.report.formatting import ALL_LABELS, PHASES, bytes_text
from graft.report.page.data import domain_columns, script_json
from graft.report.page.render import PageFigure, flat_rows, page_figure, page_file, render, safe
from graft.report.run import DOWN, UP, RunRecord, payload_by, read_run
from graft.report.summary import (
    DomainGain,
    MethodSummary,
    class_times,
    domain_gains,
    summarise,
    summarise_rounds,
)
from graft.report.tables import by_accuracy, headings, notes, score_titles, table_cells

REPORT_NAME = "report.html"
_MOST_ROUNDS = 24
_MOST_NAMES, _MOST_LEFT_OUT = 8, 40


def write_report(run_folder: AnyPath) -> AnyPath:
    """Write ``report.html`` into a run folder, atomically, and return its path.

    Raises RunError where the folder is not a run's, ExtraMissingError without
    ``graft-fl[report]``.
    """
    page = report_page(read_run(run_folder))
    path = run_folder / REPORT_NAME
    replace_file(path, page.encode())
    return path


def report_page(run: RunRecord) -> str:
    """The whole page as text; the same run gives the same text."""
    summaries = summarise(run.rows, run.ledger, run.config)
    main = summaries[0]
    gains = domain_gains(run.rows, main.method)
    ordered = sorted(run.rows, key=lambda row: (row.round_index, row.domain_id, row.method))
    system = run.ledger.filter((pc.field("method") == "") & (pc.field("round_index") >= 1))
    details = {
        "Configuration": config_to_dict(run.config),
        "World": run.world,
        "Versions": run.versions,
        "Run": run.run,
    }
    return render(
        "report.html.j2",
        title=f"graft: {run.run.get('id', 'run')}",
        run=run,
        main=main,
        scores=score_titles(summaries),
        ceiling=next((each for each in summaries if each.method == ALL_LABELS), None),
        summaries=summaries,
        gains=gains,
        system=_both_ways(payload_by(system, "up")) if len(system) else None,
        forgotten=_forgotten(run),
        left_out=_left_out(run),
        growth={
            "headings": growth.HEADINGS,
            "cells": [*map(growth.growth_cells, growth.summarise_growth(run.rows, run.ledger))],
            "note": growth.NOTE,
        },
        failures=[row for row in ordered if row.error is not None],
        figures=_figures(run, summaries, gains),
        methods={
            "headings": headings(summaries),
            "rows": [(each, table_cells(each)) for each in by_accuracy(summaries)],
            "notes": notes(summaries),
        },
        transfer_words=transfer_words(transfers_by_round(run.rows, main.method)),
        class_times=class_times(run.rows, main.method, run.config.network.deadline_s),
        ledger=_ledger(run),
        details=[(heading, flat_rows(table)) for heading, table in details.items()],
        columns=safe(script_json(domain_columns(run))),
        script=safe(page_file("page.js")),
    )


def _figures(
    run: RunRecord, summaries: Sequence[MethodSummary], gains: Sequence[DomainGain]
) -> dict[str, PageFigure | None]:
    main, score = run.config.method, score_titles(summaries)[0]
    rounds = summarise_rounds(run.rows, run.config)
    transfers = transfers_by_round(run.rows, main)
    domains = Counter(index for index, _ in {(r.round_index, r.domain_id) for r in run.rows})
    drawings: dict[str, Callable[[Canvas], str]] = {
        "accuracy": lambda canvas: accuracy_per_round(rounds, canvas, score=score),
        "pareto": lambda canvas: accuracy_against_bytes(summaries, canvas, score=score),
        "phases": lambda canvas: bytes_by_phase(run.ledger, main, canvas),
        "rounds": lambda canvas: bytes_by_round(run.ledger, main, canvas),
        "gains": lambda canvas: domain_gains_figure(gains, canvas, score=score),
        "transfers": lambda canvas: transfer_figure(transfers, domains, canvas),
        "times": lambda canvas: time_by_device_class(run.rows, main, canvas),
    }
    return {
        name: page_figure(draw) if transfers or name != "transfers" else None
        for name, draw in drawings.items()
    }


def _left_out(run: RunRecord) -> list[tuple[str, str, str]]:
    """What budgets left out: the words, of how many target domains, and their first names."""
    domains: dict[str, list[str]] = defaultdict(list)
    for row in run.rows:
        if row.method == run.config.method:
            for words in row.left_out:
                domains[words].append(row.domain_id)
    ranked = sorted(domains.items(), key=lambda each: (-len(each[1]), each[0]))
    return [
        (
            words,
            str(len(names)),
            ", ".join(names[:_MOST_NAMES]) + ("…" * (len(names) > _MOST_NAMES)),
        )
        for words, names in ranked[:_MOST_LEFT_OUT]
    ]


def _forgotten(run: RunRecord) -> list[tuple[str, ...]]:
    """A line for each forgotten domain: what had learned from it, and what became of that."""
    replaced = {name for each in run.forgotten for name in each.models}
    lines: list[tuple[str, ...]] = []
    for each in run.forgotten:
        if each.reason == "forgotten":
            learned = [
                f"{model.domain_id} (trained again)"
                if each.policy == "retrain" and model.model_id in replaced
                else f"{model.domain_id}{'' if each.policy == 'keep' else ' (quarantined)'}"
                for model in each.descendants
            ]
            count = str(len(each.models))
            lines.append(
                (each.domain_id, str(each.round_index), count, each.policy, ", ".join(learned))
            )
    return lines


def _ledger(run: RunRecord) -> dict[str, Any]:
    """Messages and payload bytes by round and phase, of all methods and of the main one."""
    counts: Counter[tuple[int, str, bool]] = Counter()
    groups = run.ledger.group_by(["round_index", "phase", "outcome"]).aggregate([([], "count_all")])
    for each in groups.to_pylist():
        counts[each["round_index"], each["phase"], each["outcome"] == "ok"] += each["count_all"]
    all_methods = payload_by(run.ledger, "round_index", "phase", "up")
    own = run.ledger.filter(pc.field("method") == run.config.method)
    main_method = payload_by(own, "round_index", "phase", "up")
    rounds = sorted({key[0] for key in counts})
    rows = []
    for index in rounds[-_MOST_ROUNDS:]:
        for phase in PHASES:
            failed = counts[index, phase, False]
            if messages := failed + counts[index, phase, True]:
                num_bytes = [
                    bytes_text(sums.get((index, phase, up), 0))
                    for sums in (all_methods, main_method)
                    for up in (DOWN, UP)
                ]
                rows.append((str(index), phase, f"{messages:,}", str(failed), *num_bytes))
    total = _both_ways(payload_by(run.ledger, "up"))
    return {"rows": rows, "is_cut": len(rounds) > _MOST_ROUNDS, **total}


def _both_ways(sums: dict[tuple[Any, ...], int]) -> dict[str, int]:
    return {"down": sums.get((DOWN,), 0), "up": sums.get((UP,), 0)}
