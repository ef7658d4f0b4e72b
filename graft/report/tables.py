"""Summaries as tables: for the terminal, as Markdown, and as plain values for JSON."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from graft.core.text import markdown_text, printable
from graft.report.formatting import (
    NONE,
    NOT_RUN,
    SCORE_TITLES,
    bytes_text,
    capitalised,
    display_name,
    interval_text,
    percent_text,
    points_text,
    seconds_text,
)
from graft.report.summary import ClassTimes, MethodSummary

NOTES = (
    "{First}, {second} and gain over label-only are means over the target domains that finished; "
    "the interval is Student's t over domains. Bytes are payload and include what failed target "
    "domains spent; the share of ship-all's bytes down leaves out target domains that either did "
    "not finish. Device time is measured, summed over target domains. {First}, {second} and "
    "device time are reported by the devices themselves."
)
REPORTED = "reported by the device"
INCOMPLETE_NOTE = (
    "* incomplete: some target domains failed, so the method's figures cover fewer domains."
)


def headings(summaries: Sequence[MethodSummary]) -> tuple[str, ...]:
    """The headings of ``table_cells``."""
    first, second = map(capitalised, score_titles(summaries))
    return (
        "Method", "Finished", first, "95 % interval", "Worst domain", "Gain, points", second,
        "Payload down", "Payload up", "Of ship-all", "Measured time",
    )  # fmt: skip


def score_titles(summaries: Sequence[MethodSummary]) -> tuple[str, str]:
    """What the two scores of a run's output are called."""
    return SCORE_TITLES[summaries[0].output if summaries else "classes"]


def _second_score(summary: MethodSummary) -> str:
    if summary.output == "amount":
        error = summary.mean_absolute_error_mean
        return NONE if error is None else f"{error:.4g}"
    is_labels = summary.output == "labels"
    return percent_text(summary.mean_average_precision_mean if is_labels else summary.macro_f1_mean)


def table_cells(summary: MethodSummary) -> tuple[str, ...]:
    """One row under ``headings``; an incomplete method's name ends in "*"."""
    worst = NONE
    if summary.worst_domain is not None:
        worst = f"{percent_text(summary.worst_accuracy)} ({summary.worst_domain})"
    gain = points_text(summary.gain_mean)
    if summary.gain_interval is not None:
        gain += f" ({interval_text(summary.gain_interval, signed=True)})"
    share = NOT_RUN if summary.ship_all_share is None else percent_text(summary.ship_all_share)
    return (
        display_name(summary.method) + ("" if summary.complete else " *"),
        summary.count_label,
        percent_text(summary.accuracy_mean),
        interval_text(summary.accuracy_interval),
        worst,
        gain,
        _second_score(summary),
        bytes_text(summary.bytes_down),
        bytes_text(summary.bytes_up),
        share,
        seconds_text(summary.device_s_total),
    )


def by_accuracy(summaries: Sequence[MethodSummary]) -> list[MethodSummary]:
    """The methods as tables list them: the most accurate first, those without accuracy last."""

    def rank(each: MethodSummary) -> float:
        return math.inf if each.accuracy_mean is None else -each.accuracy_mean

    return sorted(summaries, key=rank)


def notes(summaries: Sequence[MethodSummary]) -> str:
    """The text under the table: what the figures are means and sums of."""
    first, second = score_titles(summaries)
    text = [NOTES.format(First=capitalised(first), second=second)]
    if peers := next((each.peers for each in summaries if each.peers.models), None):
        text.append(
            f"Domains that probed the catalogue's models: {peers.models:,} models probed "
            f"{peers.probed:,} times, chosen {peers.chosen:,} times, rejected "
            f"{peers.rejected:,} times."
        )
    if not all(summary.complete for summary in summaries):
        text.append(INCOMPLETE_NOTE)
    return " ".join(text)


def rich_table(summaries: Sequence[MethodSummary]) -> Table:
    """The table for the terminal; the first summary is the main method and stands out."""
    rows = [
        (table_cells(each), row_style(each, is_main=each is summaries[0]))
        for each in by_accuracy(summaries)
    ]
    table = Table(caption=notes(summaries), caption_justify="left")
    return filled(table, headings(summaries), rows, text_columns=(0, 4))


def row_style(summary: MethodSummary, *, is_main: bool) -> str:
    """The run's own method stands out, and an incomplete one."""
    return "bold" if is_main else ("" if summary.complete else "yellow")


def filled(
    table: Table,
    headings: Sequence[str],
    rows: Iterable[tuple[Sequence[str], str]],
    *,
    text_columns: Sequence[int] = (0,),
) -> Table:
    """The table with rows of (cells, style); all but ``text_columns`` are right-aligned."""
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number in text_columns else "right")
    for cells, style in rows:
        # Text, not markup: a domain id such as "[red]" is a name.
        table.add_row(*(Text(printable(cell)) for cell in cells), style=style)
    return table


def markdown_table(summaries: Sequence[MethodSummary]) -> str:
    """The same table as Markdown, with its notes below."""
    cells = [table_cells(s) for s in by_accuracy(summaries)]
    table = markdown_grid(headings(summaries), cells, text_columns=(0, 4))
    return table + "\n" + notes(summaries).replace("*", "\\*") + "\n"


def summary_dict(summaries: Sequence[MethodSummary]) -> dict[str, Any]:
    """Plain values for JSON: bytes are payload, ``*_s`` are measured seconds, shares are of 1."""
    return {
        "methods": [
            {
                **dataclasses.asdict(summary),
                "display_name": display_name(summary.method),
                "complete": summary.complete,
                "count_label": summary.count_label,
                "source_of_accuracy": REPORTED,
            }
            for summary in summaries
        ]
    }


def class_dicts(times: Sequence[ClassTimes]) -> list[dict[str, Any]]:
    """Plain values for JSON; a percentile triple is p50, p95, p99 in seconds."""
    return [dataclasses.asdict(each) for each in times]


def markdown_grid(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: Sequence[int] = (0,)
) -> str:
    """Cells as a Markdown table; all but ``text_columns`` are right-aligned."""
    marks = [":--" if number in text_columns else "--:" for number in range(len(headings))]
    lines = [headings, marks, *([markdown_text(cell) for cell in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
