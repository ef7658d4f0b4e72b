"""Which methods differ: Friedman's test, Nemenyi's critical difference, and their diagram.

After Demsar, JMLR 7 (2006): a block is a (set, seed, domain), within which methods are ranked by
accuracy, the best first; two methods differ at 5 % where their mean ranks are further apart than
the critical difference.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from graft.bench.rows import BenchmarkRow, is_ablation
from graft.bench.summary import accuracy_of
from graft.report.figures.canvas import (
    INK,
    RULE,
    SOFT,
    WIDE,
    axes_px,
    draw_svg,
    method_colour,
    method_text_colour,
    text_width_px,
)
from graft.report.formatting import REFERENCES, count_text, display_name

Block = tuple[str, int, str]
LINE_PX = 20
BAR_PX = 9
AXIS_PX = 66
FIRST_NAME_PX = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """Mean ranks, the best method first; 1 is the best possible.

    ``left_out`` are the methods that lack a block of the main method's. ``alike`` are the
    largest groups, as (first, last) positions, within which no two methods differ.
    """

    methods: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    num_blocks: int
    p_value: float
    critical_difference: float
    alike: tuple[tuple[int, int], ...]
    left_out: tuple[str, ...]


def rank_methods(
    rows: Sequence[BenchmarkRow], *, gamma: float, main: str, num_sources: int
) -> Ranking | None:
    """The ranking at one gamma and N_p, over every block that the main method finished.

    All-labels and ablations are not ranked. None where fewer than three methods,
    or two blocks, can be compared.
    """
    accuracies: dict[str, dict[Block, float]] = defaultdict(dict)
    for row in rows:
        is_ranked = row.method not in REFERENCES and not is_ablation(row.method, main)
        if is_ranked and (row.gamma, row.num_sources) == (gamma, num_sources):
            accuracies[row.method]  # a method that finished nothing is left out by name
            if row.error is None and row.accuracy is not None:
                accuracies[row.method][row.data, row.seed, row.domain_id] = accuracy_of(row)
    blocks = sorted(accuracies[main])
    methods = sorted(name for name, table in accuracies.items() if set(blocks) <= set(table))
    if len(methods) < 3 or len(blocks) < 2:
        return None
    accuracies_BM = np.array([[accuracies[name][block] for name in methods] for block in blocks])
    ranks_M = rankdata(-accuracies_BM, axis=1).mean(axis=0)
    order = np.argsort(ranks_M, kind="stable")
    ranked = tuple(float(ranks_M[index]) for index in order)
    difference = critical_difference(len(methods), len(blocks))
    differs = bool((np.ptp(accuracies_BM, axis=1) > 0).any())
    p_value = float(friedmanchisquare(*accuracies_BM.T).pvalue) if differs else 1.0
    return Ranking(
        methods=tuple(methods[index] for index in order),
        mean_ranks=ranked,
        num_blocks=len(blocks),
        p_value=p_value,
        critical_difference=difference,
        alike=alike_groups(ranked, difference),
        left_out=tuple(sorted(set(accuracies) - set(methods))),
    )


def critical_difference(num_methods: int, num_blocks: int) -> float:
    """Nemenyi's, at 5 %: q sqrt(k (k + 1) / (6 N)), q from the Studentised range over sqrt(2)."""
    q = float(studentized_range.ppf(0.95, num_methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(num_methods * (num_methods + 1) / (6 * num_blocks))


def alike_groups(ranks: Sequence[float], difference: float) -> tuple[tuple[int, int], ...]:
    """The largest runs of two or more rising ranks that span no more than ``difference``."""
    groups: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(index for index, other in enumerate(ranks) if other - rank <= difference)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return tuple(groups)


def critical_difference_diagram(ranking: Ranking, main: str, title: str) -> str:
    """Mean ranks on a line, the best left; a bar joins methods that do not differ."""
    best = (len(ranking.methods) + 1) // 2
    below_px = FIRST_NAME_PX + BAR_PX * len(ranking.alike) + LINE_PX * best
    height = AXIS_PX + below_px

    def draw(figure: Figure) -> None:
        names = [f"{display_name(method)}  00.00" for method in ranking.methods]
        left, right = (
            max(text_width_px(figure, name, bold=True) for name in side) + 14
            for side in (names[:best], names[best:])
        )
        axes = axes_px(figure, left=left, right=right, top=0, bottom=0)
        axes.set_axis_off()
        count = len(ranking.methods)
        margin = (count - 1) * 0.02
        axes.set_xlim(1 - margin, count + margin)
        axes.set_ylim(height, 0)  # pixels from the top
        _rank_axis(axes, count)
        _difference(axes, ranking.critical_difference)
        for number, (first, last) in enumerate(ranking.alike):
            y = AXIS_PX + 12 + BAR_PX * number
            ends = (ranking.mean_ranks[first] - margin, ranking.mean_ranks[last] + margin)
            axes.plot(ends, (y, y), color=INK, linewidth=4, solid_capstyle="butt", zorder=4)
        start = AXIS_PX + FIRST_NAME_PX + BAR_PX * len(ranking.alike)
        for index, (method, rank) in enumerate(
            zip(ranking.methods, ranking.mean_ranks, strict=True)
        ):
            at_left = index < best
            row = index if at_left else count - 1 - index
            _method_line(axes, method, rank, start + LINE_PX * row, method == main, at_left)

    caption = (
        f"{title}: mean ranks over {count_text(ranking.num_blocks, 'block')}, critical "
        f"difference {ranking.critical_difference:.2f}"
    )
    return draw_svg(draw, canvas=WIDE, height_px=height, title=caption)


def _rank_axis(axes: Axes, count: int) -> None:
    axes.plot((1, count), (AXIS_PX, AXIS_PX), color=SOFT, linewidth=1.2)
    for rank in range(1, count + 1):
        axes.plot((rank, rank), (AXIS_PX - 6, AXIS_PX), color=SOFT, linewidth=1.2)
        axes.text(rank, AXIS_PX - 10, str(rank), ha="center", va="bottom", color=SOFT)


def _difference(axes: Axes, difference: float) -> None:
    y = 26
    axes.plot((1, 1 + difference), (y, y), color=INK, linewidth=1.6)
    for end in (1, 1 + difference):
        axes.plot((end, end), (y - 4, y + 4), color=INK, linewidth=1.6)
    axes.text(1 + difference / 2, y - 6, f"critical difference {difference:.2f}", ha="center",
              va="bottom", color=INK)  # fmt: skip


def _method_line(
    axes: Axes, method: str, rank: float, y: float, is_main: bool, at_left: bool
) -> None:
    low, high = axes.get_xlim()
    edge = low if at_left else high
    colour = method_colour(method, is_main)
    points: Sequence[float] = (rank, rank, edge)
    axes.plot(points, (AXIS_PX, y, y), color=colour if is_main else RULE,
              linewidth=2 if is_main else 1.2, zorder=2)  # fmt: skip
    words = (display_name(method), f"{rank:.2f}")
    axes.annotate(
        "  ".join(words if at_left else words[::-1]), (edge, y), xytext=(-6 if at_left else 6, 0),
        textcoords="offset points", ha="right" if at_left else "left",
        va="center_baseline", annotation_clip=False, color=method_text_colour(method, is_main),
        fontweight="bold" if is_main else "normal",
    )  # fmt: skip
