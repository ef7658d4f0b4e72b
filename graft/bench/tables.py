"""The benchmark matrix as tables: one a set and gamma, the sets side by side, the ablations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from graft.bench.ranks import Ranking
from graft.bench.rows import is_ablation
from graft.bench.summary import MatrixSummary, Overview
from graft.core.text import printable
from graft.report.formatting import (
    MINUS,
    NONE,
    NOT_RUN,
    bytes_text,
    display_name,
    interval_text,
    percent_text,
    points_text,
    seconds_text,
)
from graft.report.summary import Interval
from graft.report.tables import markdown_grid

FEWEST_PERSONS = 5

NOTES = (
    "Means over pairs of seed and target domain; 95 % intervals are clustered by person, because "
    "one person may be a target domain of several seeds. The gain is the main method minus the "
    "row's, paired. Bytes are payload bytes a target domain: requests, probes with rejected "
    "candidates, shipped parts, the report, and the finished model going up. Device time is CPU "
    "time of the fit, where it was measured; peak memory is the memory model's largest figure. "
    "* marks a method that some target domains failed."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A table's words, before it is Markdown or on a terminal."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table as Markdown, without its title."""
        return markdown_grid(self.headings, self.rows)

    def rich(self) -> Table:
        """The table for a terminal."""
        table = Table(title=self.title, title_justify="left")
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if number else "left")
        for row in self.rows:
            # Text, not markup: "[red]" may be a name.
            table.add_row(*(Text(printable(cell)) for cell in row))
        return table


def set_grid(summaries: Sequence[MatrixSummary], main: str) -> Grid:
    """Every method on one set at one gamma, the main method first."""
    first = summaries[0]
    headings = (
        "Method", "Accuracy", "95 % interval", "Worst target domain", f"{display_name(main)} gains",
        "95 % interval", "Macro-F1", "Bytes up", "Bytes down", "Of ship-all", "Device time",
        "Peak memory",
    )  # fmt: skip
    return Grid(
        title=f"{first.data}, gamma {first.gamma:g}",
        headings=headings,
        rows=tuple(_set_row(item) for item in summaries),
    )


def overview_grid(
    overviews: Sequence[Overview], ranking: Ranking | None, sets: Sequence[str], gamma: float
) -> Grid:
    """Every method's accuracy on every set at one gamma, best mean first."""
    ranks = dict(zip(ranking.methods, ranking.mean_ranks, strict=True)) if ranking else {}
    rows = tuple(
        (
            display_name(item.method),
            *(percent_text(item.accuracy_by_data.get(name)) for name in sets),
            percent_text(item.accuracy_mean),
            percent_text(item.gap_closed, digits=0).replace("-", MINUS),
            f"{ranks[item.method]:.2f}" if item.method in ranks else NONE,
        )
        for item in overviews
    )
    return Grid(
        title=f"gamma {gamma:g}",
        headings=("Method", *sets, "Mean", "Gap closed", "Mean rank"),
        rows=rows,
    )


def ablation_grid(
    summaries: Mapping[str, Sequence[MatrixSummary]], main: str, gamma: float
) -> Grid | None:
    """What the main method loses without each part, in points on every set; None without any."""
    variants = ablations(summaries, main)
    if not variants:
        return None
    rows = []
    for method in (main, *variants):
        row = [display_name(method)]
        for each in summaries.values():
            summary = next((item for item in each if item.method == method), None)
            row.append(_ablation_text(summary, is_main=method == main))
        rows.append(tuple(row))
    return Grid(
        title=f"ablations, gamma {gamma:g}", headings=("Method", *summaries), rows=tuple(rows)
    )


def ablations(summaries: Mapping[str, Sequence[MatrixSummary]], main: str) -> tuple[str, ...]:
    """The methods that are the main one without a part."""
    names = {item.method for each in summaries.values() for item in each}
    return tuple(sorted(name for name in names if is_ablation(name, main)))


def _interval(item: MatrixSummary, interval: Interval | None, *, signed: bool = False) -> str:
    """An interval; of fewer than five persons it says nothing."""
    if interval is not None and item.persons < FEWEST_PERSONS:
        return "n too small"
    return interval_text(interval, signed=signed)


def _set_row(item: MatrixSummary) -> tuple[str, ...]:
    worst = NONE
    if item.worst_pair is not None:
        seed, domain_id = item.worst_pair
        worst = f"{percent_text(item.worst_accuracy)} ({domain_id}, seed {seed})"
    share = NOT_RUN if item.ship_all_share is None else percent_text(item.ship_all_share)
    return (
        display_name(item.method) + ("" if item.complete else f" * {item.count_label}"),
        percent_text(item.accuracy_mean),
        _interval(item, item.accuracy_interval),
        worst,
        points_text(item.gain_mean),
        _interval(item, item.gain_interval, signed=True),
        percent_text(item.macro_f1_mean),
        bytes_text(item.bytes_up),
        bytes_text(item.bytes_down),
        share,
        seconds_text(item.device_s),
        bytes_text(item.peak_memory_bytes),
    )


def _ablation_text(item: MatrixSummary | None, *, is_main: bool) -> str:
    if item is None or item.accuracy_mean is None:
        return NONE
    if is_main:
        return percent_text(item.accuracy_mean)
    if item.gain_mean is None:
        return NONE
    change = points_text(-item.gain_mean)
    if item.gain_interval is None:
        return change
    low, high = item.gain_interval
    return f"{change} ({interval_text((-high, -low), signed=True)})"
