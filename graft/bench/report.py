"""The benchmark matrix as a folder: tables as Markdown, figures as SVG, and summary.json.

Everything here is a function of the rows alone, so it can be written again at any time.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from graft.bench.figures import (
    ablation_bars,
    accuracy_by_gamma,
    accuracy_by_sources,
    accuracy_with_gains,
)
from graft.bench.figures_file import figure, write_summary
from graft.bench.ranks import Ranking, critical_difference_diagram, rank_methods
from graft.bench.rows import BenchmarkRow, is_ablation
from graft.bench.summary import (
    MatrixSummary,
    Overview,
    accuracy_of,
    finished_rows,
    negative_transfer,
    overviews,
    summarise_matrix,
)
from graft.bench.tables import NOTES, Grid, ablation_grid, overview_grid, set_grid
from graft.core.files import replace_file
from graft.core.text import markdown_text
from graft.data.worlds import EMBEDDED
from graft.report.figures.accuracy import domain_gains_figure
from graft.report.figures.pareto import accuracy_against_bytes
from graft.report.formatting import LABEL_ONLY, LABEL_ONLY_RECIPE, count_text, display_name
from graft.report.summary import DomainGain

# The labelled share that figures are drawn at; the nearest one that the rows have.
FOCUS_GAMMA: Final = 0.1
# What a gain over a method is wanted to be, in points; set "" stands for every set.
TARGETS: Final = {("myo", LABEL_ONLY): ">= 8", ("", "finetuned-same"): "> 0"}
SHOWN_FAILURES: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """The rows in numbers. ``num_sources`` is the N_p whose rows count; ``sweep`` has them all."""

    rows: tuple[BenchmarkRow, ...]
    main: str
    num_sources: int
    summaries: Mapping[float, Mapping[str, tuple[MatrixSummary, ...]]]
    overviews: Mapping[float, tuple[Overview, ...]]
    rankings: Mapping[float, Ranking | None]
    sweep: tuple[MatrixSummary, ...]

    @property
    def focus(self) -> float:
        """The gamma that the figures of one gamma are drawn at."""
        return min(self.summaries, key=lambda gamma: (abs(gamma - FOCUS_GAMMA), gamma))


def analyse_matrix(rows: Iterable[BenchmarkRow], *, main: str, num_sources: int) -> Matrix:
    """Every number that tables and figures show."""
    ordered = tuple(sorted(rows, key=lambda row: row.key))
    sets: dict[float, list[str]] = defaultdict(list)
    for row in ordered:
        if row.num_sources == num_sources and row.data not in sets[row.gamma]:
            sets[row.gamma].append(row.data)
    summaries = {
        gamma: {
            data: summarise_matrix(
                ordered, data=data, gamma=gamma, main=main, num_sources=num_sources
            )
            for data in names
        }
        for gamma, names in sorted(sets.items())
    }
    swept = sorted({(row.data, row.gamma, row.num_sources) for row in ordered})
    return Matrix(
        rows=ordered,
        main=main,
        num_sources=num_sources,
        summaries=summaries,
        overviews={gamma: overviews(each, main) for gamma, each in summaries.items()},
        rankings={
            gamma: rank_methods(ordered, gamma=gamma, main=main, num_sources=num_sources)
            for gamma in summaries
        },
        sweep=tuple(
            item
            for data, gamma, number in swept
            for item in summarise_matrix(
                ordered, data=data, gamma=gamma, main=main, num_sources=number
            )
        ),
    )


def write_matrix_report(matrix: Matrix, folder: Path) -> Path:
    """Write tables, figures and summary.json; returns the page that shows them all.

    Figures that are no longer drawn are removed.
    """
    drawn = matrix_figures(matrix)
    for path in sorted((folder / "figures").glob("*.svg")):
        if path.stem not in drawn:
            path.unlink()
    for name, svg in drawn.items():
        replace_file(folder / "figures" / f"{name}.svg", svg.encode(), durable=False)
    for gamma, sets in matrix.summaries.items():
        for data, summaries in sets.items():
            grid = set_grid(summaries, matrix.main)
            text = f"# {grid.title}\n\n{grid.markdown()}\n{_escaped(NOTES)}\n"
            replace_file(folder / f"{data}-gamma{gamma:g}.md", text.encode(), durable=False)
    write_summary(folder, summary_figures(matrix), whole=True)
    page = folder / "overview.md"
    replace_file(page, overview_page(matrix, list(drawn)).encode())
    return page


def overview_grids(matrix: Matrix) -> list[Grid]:
    """Methods by sets, a table a gamma."""
    return [
        overview_grid(
            [item for item in each if not is_ablation(item.method, matrix.main)],
            matrix.rankings[gamma],
            list(matrix.summaries[gamma]),
            gamma,
        )
        for gamma, each in matrix.overviews.items()
    ]


def overview_page(matrix: Matrix, drawn: Sequence[str]) -> str:
    """The page of all tables and figures, as Markdown."""
    main, focus = matrix.main, matrix.focus
    lines = [f"# Accuracy of {display_name(main)} and the methods it is compared with", ""]
    lines += [f"    {rows_command(matrix.rows)}", "", *_extent_lines(matrix), ""]
    lines += [
        _escaped(NOTES),
        "",
        "Gap closed is the share of the way from label-only to all-labels, averaged over sets. "
        "Mean ranks are over blocks of set, seed and target domain. A dash marks a method that "
        "lacks target domains that others have.",
        "",
    ]
    for grid, gamma in zip(overview_grids(matrix), matrix.overviews, strict=True):
        names = ", ".join(f"[{d}]({d}-gamma{gamma:g}.md)" for d in matrix.summaries[gamma])
        links = f"Every method's intervals, bytes, time and memory: {names}."
        lines += [f"## Gamma {gamma:g}", "", grid.markdown(), links, ""]
        lines += _negative_transfer_lines(matrix, gamma)
        ranking = matrix.rankings[gamma]
        if ranking is not None:
            lines += [_ranking_text(ranking), "", _image(f"ranks-gamma{gamma:g}"), ""]
        ablated = ablation_grid(matrix.summaries[gamma], main, gamma)
        if ablated is not None:
            words = f"What {display_name(main)} changes by without a part, in points, paired:"
            lines += [words, "", ablated.markdown()]
    lines += [f"## Figures (gamma {focus:g} where one gamma is shown)", ""]
    for name in drawn:
        if not name.startswith("ranks-"):
            lines += [_image(name), ""]
    lines += _failure_lines(matrix)
    return "\n".join(lines).rstrip() + "\n"


def matrix_figures(matrix: Matrix) -> dict[str, str]:
    """Every figure's SVG by its name."""
    main, focus = matrix.main, matrix.focus
    at_focus = matrix.summaries[focus]
    drawn: dict[str, str] = {}
    for gamma, ranking in matrix.rankings.items():
        if ranking is not None:
            drawn[f"ranks-gamma{gamma:g}"] = critical_difference_diagram(
                ranking, main, f"Methods at gamma {gamma:g}"
            )
    for data, summaries in at_focus.items():
        rivals = [item for item in summaries if not is_ablation(item.method, main)]
        drawn[f"accuracy-{data}"] = accuracy_with_gains(rivals, main)
        drawn[f"bytes-{data}"] = accuracy_against_bytes(rivals, owner="mean of a target domain")
        gains = _domain_gains(matrix, data, focus)
        if gains:
            drawn[f"domains-{data}"] = domain_gains_figure(gains)
        by_gamma = [s for each in matrix.summaries.values() for s in each.get(data, ())]
        if len({item.gamma for item in by_gamma}) > 1:
            drawn[f"gamma-{data}"] = accuracy_by_gamma(by_gamma, main, data)
    bars = ablation_bars(at_focus, main)
    if bars is not None:
        drawn["ablations"] = bars
    swept = [item for item in matrix.sweep if item.gamma == focus]
    for method in sorted({item.method for item in swept}):
        mine = [item for item in swept if item.method == method]
        if len({item.num_sources for item in mine}) > 1:
            drawn[f"sources-{method}"] = accuracy_by_sources(mine, method)
    return drawn


def summary_figures(matrix: Matrix) -> dict[str, dict[str, Any]]:
    """The figures of summary.json by name."""
    figures: dict[str, dict[str, Any]] = {}
    main, command = matrix.main, rows_command(matrix.rows)

    def add(
        name: str, value: float | None, unit: str, seeds: Iterable[int], target: str | None = None
    ) -> None:
        if value is not None:
            figures[name] = figure(value, unit, target, command, sorted(seeds))

    for gamma, sets in matrix.summaries.items():
        every_seed = {row.seed for row in matrix.rows if row.gamma == gamma}
        for data, summaries in sets.items():
            seeds = {r.seed for r in matrix.rows if (r.data, r.gamma) == (data, gamma)}
            for item in summaries:
                label = f"{data}/gamma={gamma:g}/{item.method}"
                add(f"{label}/accuracy", item.accuracy_mean, "share", seeds)
                if item.method == main:
                    add(f"{label}/of_ship_all", item.ship_all_share, "share of bytes", seeds)
                if item.gain_mean is not None:
                    target = TARGETS.get((data, item.method), TARGETS.get(("", item.method)))
                    gain = 100 * item.gain_mean
                    add(f"{label}/{main}_gain", gain, "points", seeds, target)
        for over in matrix.overviews[gamma]:
            label = f"all/gamma={gamma:g}/{over.method}"
            add(f"{label}/accuracy", over.accuracy_mean, "share, mean of sets", every_seed)
            add(f"{label}/gap_closed", over.gap_closed, "share", every_seed)
        counted = _negative_transfer(matrix, gamma)
        if counted is not None:
            name = f"all/gamma={gamma:g}/{main}/negative_transfer"
            share = counted[0] / counted[1]
            add(name, share, f"share of targets below {LABEL_ONLY_RECIPE}", every_seed, "<= 0.01")
        ranking = matrix.rankings[gamma]
        if ranking is not None:
            for method, rank in zip(ranking.methods, ranking.mean_ranks, strict=True):
                add(f"all/gamma={gamma:g}/{method}/mean_rank", rank, "rank", every_seed)
    return figures


def rows_command(rows: Sequence[BenchmarkRow]) -> str:
    """A command that computes these sets, gammas, seeds and target domains, without the folders."""
    sets = sorted({row.data for row in rows})
    pairs = {(row.data, row.seed, row.domain_id) for row in rows}
    targets = Counter((data, seed) for data, seed, _ in pairs)
    options = [f"--data {name if name in EMBEDDED else f'{name}=FOLDER'}" for name in sets]
    options += [f"--gamma {gamma:g}" for gamma in sorted({row.gamma for row in rows})]
    options.append(f"--seeds {max((row.seed for row in rows), default=0) + 1}")
    options.append(f"--targets {max(targets.values(), default=1)}")
    return " ".join(["graft bench accuracy", *options])


def _domain_gains(matrix: Matrix, data: str, gamma: float) -> list[DomainGain]:
    """The main method's gain over label-only for each domain, the mean of its seeds."""
    tables = finished_rows(matrix.rows, data=data, gamma=gamma, num_sources=matrix.num_sources)
    main, reference = tables[matrix.main], tables[LABEL_ONLY]
    gains: dict[str, list[float]] = defaultdict(list)
    for pair in set(main) & set(reference):
        gains[pair[1]].append(accuracy_of(main[pair]) - accuracy_of(reference[pair]))
    return [
        DomainGain(domain_id=domain_id, round_index=1, gain=statistics.fmean(values))
        for domain_id, values in sorted(gains.items())
    ]


def _extent_lines(matrix: Matrix) -> list[str]:
    """The numbers of seeds, target domains and persons behind each set's figures."""
    lines = []
    for data in sorted({row.data for row in matrix.rows}):
        mine = [row for row in matrix.rows if row.data == data]
        seeds = len({row.seed for row in mine})
        persons = len({row.person for row in mine})
        pairs = len({(row.seed, row.domain_id) for row in mine})
        lines.append(
            f"- {data}: {count_text(seeds, 'seed')}, {count_text(pairs, 'target domain')} "
            f"({count_text(persons, 'person')})"
        )
    return lines


def _negative_transfer(matrix: Matrix, gamma: float) -> tuple[int, int] | None:
    return negative_transfer(
        matrix.rows, gamma=gamma, main=matrix.main, num_sources=matrix.num_sources,
        reference=LABEL_ONLY_RECIPE,
    )  # fmt: skip


def _negative_transfer_lines(matrix: Matrix, gamma: float) -> list[str]:
    counted = _negative_transfer(matrix, gamma)
    if counted is None:
        return []
    below, total = counted
    return [
        f"{below} of {count_text(total, 'target domain')} end below "
        f"{display_name(LABEL_ONLY_RECIPE)} beyond chance, at most (McNemar's exact test, 5 %, "
        "from accuracies).",
        "",
    ]


def _ranking_text(ranking: Ranking) -> str:
    words = (
        f"Friedman over {count_text(ranking.num_blocks, 'block')}: p = {ranking.p_value:.2g}; "
        f"Nemenyi's critical difference is {ranking.critical_difference:.2f} at 5 %."
    )
    if ranking.left_out:
        words += f" Left out for lacking blocks: {', '.join(map(display_name, ranking.left_out))}."
    return words


def _failure_lines(matrix: Matrix) -> list[str]:
    failed = [row for row in matrix.rows if row.error]
    if not failed:
        return []
    lines = ["## Failures", "", f"{count_text(len(failed), 'row')} failed:", ""]
    for row in failed[:SHOWN_FAILURES]:
        where = f"{row.data}, seed {row.seed}, gamma {row.gamma:g}, {row.method}, {row.domain_id}"
        lines.append(f"- {markdown_text(f'{where}: {row.error}: {row.error_message}')}")
    return lines


def _image(name: str) -> str:
    return f"![{name}](figures/{name}.svg)"


def _escaped(text: str) -> str:
    return text.replace("*", "\\*")
