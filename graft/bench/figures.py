"""Figures of the benchmark matrix: accuracy and paired gains, gamma, N_p, ablations.

Every function gives a standalone SVG, the same text for the same figures.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from graft.bench.rows import is_ablation
from graft.bench.summary import MatrixSummary
from graft.bench.tables import ablations
from graft.report.figures.accuracy import MARKERS, end_labels
from graft.report.figures.canvas import (
    INK,
    MAIN,
    PERCENT_PX,
    QUIET,
    RULE,
    SOFT,
    WIDE,
    axes_px,
    draw_svg,
    method_colour,
    method_text_colour,
    padded,
    percent_axis,
    text_width_px,
)
from graft.report.formatting import ALL_LABELS, LABEL_ONLY, MINUS, display_name, percent_text
from graft.report.summary import Interval

ROW_PX = 24


class Point(Protocol):
    """A mean accuracy, with its 95 % interval where there is one."""

    @property
    def accuracy_mean(self) -> float | None: ...

    @property
    def accuracy_interval(self) -> Interval | None: ...


RIVALS = 5


def accuracy_with_gains(summaries: Sequence[MatrixSummary], main: str) -> str:
    """Each method's accuracy, and beside it how far the main method is ahead of it, paired.

    Both with 95 % intervals, the most accurate method on top. The intervals on the right are
    the ones that separate methods: differences between persons are not in them.
    """
    shown = sorted(
        (item for item in summaries if item.accuracy_mean is not None),
        key=lambda item: (-(item.accuracy_mean or 0.0), item.method),
    )
    height = 62 + ROW_PX * max(1, len(shown))

    def draw(figure: Figure) -> None:
        names = [_counted_name(item) for item in shown]
        name_px = max((text_width_px(figure, name, bold=True) for name in names), default=0) + 18
        half = (WIDE.width_px - name_px - 40) / 2
        left = _row_axes(figure, left=name_px, right=half + 40, names=names, shown=shown, main=main)
        right = _row_axes(
            figure, left=name_px + half + 20, right=20, names=None, shown=shown, main=main
        )
        left.xaxis.set_major_formatter(FuncFormatter(lambda x, _: percent_text(x, digits=0)))
        right.xaxis.set_major_formatter(FuncFormatter(_points_tick))
        left.set_xlabel("accuracy")
        right.set_xlabel(f"points that {display_name(main)} is ahead, paired")
        right.axvline(0, color=SOFT, linewidth=1.2)
        for row, item in enumerate(shown):
            _dot(left, row, item.accuracy_mean, item.accuracy_interval, item.method, main)
            if item.method != main:
                _dot(right, row, item.gain_mean, item.gain_interval, item.method, main)

    title = f"Accuracy and paired gains on {_where(summaries)}, with 95 % intervals"
    return draw_svg(draw, canvas=WIDE, height_px=height, title=title)


def accuracy_by_gamma(summaries: Sequence[MatrixSummary], main: str, data: str) -> str:
    """Mean accuracy by the labelled share, on a logarithmic axis.

    Of the main method, both references, and the ``RIVALS`` best of the others by their mean over
    the shares: all of them in one figure would hide each other.
    """
    lines: dict[str, list[MatrixSummary]] = {}
    for item in sorted(summaries, key=lambda item: item.gamma):
        if item.accuracy_mean is not None:
            lines.setdefault(item.method, []).append(item)
    gammas = sorted({item.gamma for item in summaries})
    named = (main, LABEL_ONLY, ALL_LABELS)
    others = [
        (-statistics.fmean(item.accuracy_mean or 0.0 for item in items), method)
        for method, items in lines.items()
        if method not in named and not is_ablation(method, main) and len(items) == len(gammas)
    ]
    drawn = [*(m for m in named if m in lines), *(m for _, m in sorted(others)[:RIVALS])]
    return accuracy_lines(
        {m: [(math.log10(i.gamma), i) for i in lines[m]] for m in drawn},
        ticks=[(math.log10(gamma), f"{gamma * 100:g} %") for gamma in gammas],
        names={method: display_name(method) for method in drawn},
        main=main,
        x_label="labelled share of a target domain's rows (log scale)",
        title=f"Accuracy by labelled share on {data}",
    )


def accuracy_by_sources(summaries: Sequence[MatrixSummary], method: str) -> str:
    """Mean accuracy of one method by the number of sources, a line a set."""
    lines: dict[str, list[MatrixSummary]] = {}
    for item in sorted(summaries, key=lambda item: item.num_sources):
        if item.accuracy_mean is not None and item.method == method:
            lines.setdefault(item.data, []).append(item)
    numbers = sorted({item.num_sources for items in lines.values() for item in items})
    return accuracy_lines(
        {data: [(float(i.num_sources), i) for i in items] for data, items in lines.items()},
        ticks=[(float(number), str(number)) for number in numbers],
        names={data: data for data in lines},
        main="",
        x_label="sources selected, N_p",
        title=f"Accuracy of {display_name(method)} by number of sources",
    )


def ablation_bars(summaries: Mapping[str, Sequence[MatrixSummary]], main: str) -> str | None:
    """What each ablation changes, in points: a bar for the mean over sets, a dot a set.

    ``summaries`` by set, at one gamma. None where there is no ablation.
    """
    changes = {
        method: [
            -item.gain_mean
            for each in summaries.values()
            for item in each
            if item.method == method and item.gain_mean is not None
        ]
        for method in ablations(summaries, main)
    }
    ranked = sorted(
        (statistics.fmean(values), method, values) for method, values in changes.items() if values
    )
    if not ranked:
        return None

    def draw(figure: Figure) -> None:
        names = [display_name(method) for _, method, _ in ranked]
        name_px = max(text_width_px(figure, name) for name in names) + 18
        axes = axes_px(figure, left=name_px, right=20, top=8, bottom=46)
        _horizontal(axes, names)
        axes.xaxis.set_major_formatter(FuncFormatter(_points_tick))
        axes.set_xlabel(f"points against {display_name(main)}: mean over sets, and each set")
        axes.axvline(0, color=SOFT, linewidth=1.2, zorder=3)
        for row, (mean, _, values) in enumerate(ranked):
            axes.barh(row, mean, height=0.6, color=QUIET, linewidth=0, zorder=2)
            axes.plot(values, [row] * len(values), "o", color=MAIN, markersize=5, zorder=4)

    title = f"Ablations of {display_name(main)}"
    return draw_svg(draw, canvas=WIDE, height_px=54 + ROW_PX * len(ranked), title=title)


def accuracy_lines(
    lines: Mapping[str, Sequence[tuple[float, Point]]],
    *,
    ticks: Sequence[tuple[float, str]],
    names: Mapping[str, str],
    main: str,
    x_label: str,
    title: str,
) -> str:
    """A line a key of ``lines``, named at its right end, with 95 % intervals."""
    order = sorted(lines, key=lambda key: (-(lines[key][-1][1].accuracy_mean or 0.0), key))
    xs = [x for x, _ in ticks]
    height = max(360, 60 + 18 * len(order))

    def draw(figure: Figure) -> None:
        name_px = max((text_width_px(figure, names[k], bold=True) for k in order), default=0)
        axes = axes_px(figure, left=PERCENT_PX, right=name_px * 0.92 + 26, top=14, bottom=48)
        percent_axis(axes)
        axes.set_xlabel(x_label)
        axes.set_xticks(xs, [text for _, text in ticks])
        if not order:
            return
        low, high = padded(xs, 0.05)
        axes.set_xlim(low, high)
        for number, key in enumerate(order):
            marker = MARKERS[number % len(MARKERS)]
            _interval_line(axes, lines[key], method_colour(key, key == main), key == main, marker)
        axes.margins(y=0.08)
        ends = [lines[key][-1][1].accuracy_mean or 0.0 for key in order]
        end_labels(axes, order, [names[key] for key in order], ends, main, WIDE)

    return draw_svg(draw, canvas=WIDE, height_px=height, title=title)


def _interval_line(
    axes: Axes, points: Sequence[tuple[float, Point]], colour: str, is_main: bool, marker: str
) -> None:
    order = 5 if is_main else 3
    axes.plot([x for x, _ in points], [item.accuracy_mean or 0.0 for _, item in points],
              color=colour, linewidth=2.6 if is_main else 1.3, marker=marker,
              markersize=8 if is_main else 5, markeredgewidth=0, zorder=order)  # fmt: skip
    for x, item in points:
        if is_main and item.accuracy_interval is not None:
            axes.plot([x, x], item.accuracy_interval, color=colour, linewidth=2,
                      zorder=order - 1)  # fmt: skip


def _row_axes(
    figure: Figure,
    *,
    left: float,
    right: float,
    names: Sequence[str] | None,
    shown: Sequence[MatrixSummary],
    main: str,
) -> Axes:
    axes = axes_px(figure, left=left, right=right, top=8, bottom=54)
    _horizontal(axes, names or [""] * len(shown))
    if names:
        for label, item in zip(axes.get_yticklabels(), shown, strict=True):
            label.set_color(method_text_colour(item.method, item.method == main))
            label.set_fontweight("bold" if item.method == main else "normal")
    return axes


def _horizontal(axes: Axes, names: Sequence[str]) -> None:
    """Rows from the top, named at their left, with a grid along x."""
    axes.grid(visible=False)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))


def _dot(
    axes: Axes, row: int, value: float | None, interval: Interval | None, method: str, main: str
) -> None:
    if value is None:
        return
    colour = method_colour(method, method == main)
    axes.plot([value], [row], "o", color=colour, markersize=8, markeredgewidth=0, zorder=4)
    if interval is not None:
        axes.plot(interval, [row, row], color=colour, linewidth=2, zorder=3)


def _points_tick(share: float, _: int | None) -> str:
    points = share * 100
    return f"{points:+.3g}".replace("-", MINUS) if abs(points) > 1e-9 else "0"


def _counted_name(item: MatrixSummary) -> str:
    return display_name(item.method) + ("" if item.complete else f" ({item.count_label})")


def _where(summaries: Sequence[MatrixSummary]) -> str:
    return f"{summaries[0].data}, gamma {summaries[0].gamma:g}"
