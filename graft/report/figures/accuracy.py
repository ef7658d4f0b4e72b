"""Figures of what was reached: accuracy per round, and gains per domain.

Every function gives a standalone SVG for one canvas, the same text for the same figures.
"""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from graft.report.figures.canvas import (
    INK,
    MAIN,
    PERCENT_PX,
    REFERENCE,
    SOFT,
    WIDE,
    Canvas,
    axes_px,
    draw_svg,
    mark,
    mark_label,
    method_colour,
    method_text_colour,
    padded,
    percent_axis,
    text_width_px,
    whole_numbers,
)
from graft.report.figures.labels import spread
from graft.report.formatting import (
    MINUS,
    display_name,
    interval_text,
    percent_text,
    points_text,
    shortened,
)
from graft.report.summary import DomainGain, RoundSummary

MARKERS = "osD^vPX<>"
NAMED_GAINS = 5
MOST_DOTS = 1000


def accuracy_per_round(
    rounds: Sequence[RoundSummary], canvas: Canvas = WIDE, *, score: str = "accuracy"
) -> str:
    """Mean accuracy of each method's target domains by round, with 95 % intervals.

    The first method of ``rounds`` is the main one. A narrow canvas numbers the lines and
    lists the names below, where names beside the lines would take the width of the figure.
    """
    shown = [item for item in rounds if item.accuracy_mean is not None]
    main = rounds[0].method if rounds else ""
    lines = {m: [item for item in shown if item.method == m] for m in _by_last_accuracy(shown)}
    list_px = (len(lines) * 18 + 12) if canvas.is_narrow else 0
    height = 360 + list_px

    def draw(figure: Figure) -> None:
        names = [_marked(m, [r for r in rounds if r.method == m]) for m in lines]
        space = max((text_width_px(figure, name, bold=True) for name in names), default=0)
        right = 44 if canvas.is_narrow else space + 26
        axes = axes_px(figure, left=PERCENT_PX, right=right, top=14, bottom=44 + list_px)
        numbers = sorted({item.round_index for item in rounds}) or [1]
        axes.set_xlim(numbers[0] - 0.4, numbers[-1] + 0.4)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(whole_numbers())
        percent_axis(axes)
        for number, (method, points) in enumerate(lines.items()):
            offset = (number - (len(lines) - 1) / 2) * 0.4 / max(1, len(lines))
            _round_line(axes, points, offset, method == main, MARKERS[number % len(MARKERS)])
        axes.margins(y=0.08)
        ends = [points[-1].accuracy_mean or 0.0 for points in lines.values()]
        labels = [str(n + 1) for n in range(len(names))] if canvas.is_narrow else names
        end_labels(axes, list(lines), labels, ends, main, canvas)
        if canvas.is_narrow:
            for number, (method, name) in enumerate(zip(lines, names, strict=True)):
                text = figure.text(8 / canvas.width_px, 1 - (372 + number * 18) / height,
                                   f"{number + 1}  {name}", va="center_baseline",
                                   color=method_text_colour(method, method == main),
                                   fontweight="bold" if method == main else "normal")  # fmt: skip
                mark(text, method)

    title = f"Mean {score} per round, with 95 % intervals over target domains"
    return draw_svg(draw, canvas=canvas, height_px=height, title=title)


def domain_gains_figure(
    gains: Sequence[DomainGain], canvas: Canvas = WIDE, *, score: str = "accuracy"
) -> str:
    """The main method's gain over label-only for each target domain, lowest first."""
    ranked = sorted(gains, key=lambda item: (item.gain, item.domain_id, item.round_index))
    lowest = "Lowest: " + ",  ".join(
        f"{shortened(item.domain_id)}\N{NO-BREAK SPACE}{points_text(item.gain)}"
        for item in ranked[:NAMED_GAINS]
    )
    wrapped = textwrap.wrap(lowest, width=42 if canvas.is_narrow else 120)

    def draw(figure: Figure) -> None:
        top = 22 + 17 * len(wrapped)
        axes = axes_px(figure, left=68, right=26, top=top, bottom=44)
        axes.set_xlabel("target domains, by gain")
        axes.yaxis.set_major_formatter(FuncFormatter(_points_tick))
        axes.set_ylabel(f"points of {score}")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
        axes.axhline(0, color=SOFT, linewidth=1.2, zorder=3)
        if not ranked:
            return
        values = [item.gain * 100 for item in ranked]
        xs = list(range(1, len(values) + 1))
        colours = [REFERENCE if value < 0 else MAIN for value in values]
        space = (canvas.width_px - 94) / len(values)
        if space >= 4:
            bars = axes.bar(xs, values, width=0.72, color=colours, linewidth=0, zorder=2)
            for bar, item in zip(bars, ranked, strict=True):
                mark(bar, "", f"{item.domain_id}: {points_text(item.gain)} points")
            # A gain of exactly nothing would leave a hole that looks like a missing target domain.
            zero = [x for x, value in zip(xs, values, strict=True) if value == 0]
            axes.plot(zero, [0.0] * len(zero), "o", color=MAIN, markersize=4, zorder=4)
        elif len(values) <= MOST_DOTS:
            axes.scatter(xs, values, s=14, c=colours, linewidths=0, zorder=2)
        else:  # a dot each would be a line all the same, and megabytes
            lost = sum(value < 0 for value in values)
            axes.plot(xs[: lost + 1], values[: lost + 1], color=REFERENCE, linewidth=3)
            axes.plot(xs[lost:], values[lost:], color=MAIN, linewidth=3, zorder=2)
        axes.set_xlim(0.3, len(values) + 0.7)
        axes.set_ylim(padded([*values, 0.0], 0.08))
        axes.xaxis.set_major_locator(
            MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
        )
        mean = sum(values) / len(values)
        axes.axhline(mean, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=4)
        # Left of the crossing every target domain lies below the mean, so the label covers none.
        axes.annotate(f"mean {points_text(mean / 100)}", (0.5, mean), xytext=(0, 5),
                      textcoords="offset points", color=INK, fontweight="bold")  # fmt: skip
        figure.text(4 / canvas.width_px, 0.995, "\n".join(wrapped), va="top",
                    color=INK, fontsize=canvas.font_px, linespacing=1.3)  # fmt: skip

    title = "Gain over label-only per target domain, lowest first"
    return draw_svg(draw, canvas=canvas, height_px=330 + 17 * len(wrapped), title=title)


def _marked(method: str, rounds: Sequence[RoundSummary]) -> str:
    finished, wanted = sum(r.finished for r in rounds), sum(r.wanted for r in rounds)
    return display_name(method) + ("" if finished == wanted else f" ({finished} of {wanted})")


def _points_tick(points: float, _: int | None) -> str:
    return f"{points:+.3g}".replace("-", MINUS) if points else "0"


def _round_line(
    axes: Axes, points: Sequence[RoundSummary], offset: float, is_main: bool, marker: str
) -> None:
    colour = method_colour(points[0].method, is_main)
    xs = [item.round_index + offset for item in points]
    means = [item.accuracy_mean or 0.0 for item in points]
    order = 5 if is_main else 3
    method, name = points[0].method, display_name(points[0].method)
    drawn = axes.plot(xs, means, color=colour, linewidth=2.6 if is_main else 1.3, zorder=order)
    for x, item in zip(xs, points, strict=True):
        if item.accuracy_interval is not None:
            drawn += axes.plot([x, x], item.accuracy_interval, color=colour,
                               linewidth=2 if is_main else 1,
                               alpha=1 if is_main else 0.6, zorder=order - 1)  # fmt: skip
    for line in drawn:
        mark(line, method)
    for x, item in zip(xs, points, strict=True):
        (point,) = axes.plot([x], [item.accuracy_mean or 0.0], color=colour, marker=marker,
                             markersize=8 if is_main else 6, markeredgewidth=0,
                             zorder=order)  # fmt: skip
        interval = f" ({interval_text(item.accuracy_interval)})" if item.accuracy_interval else ""
        reached = f"{percent_text(item.accuracy_mean)}{interval}, {item.finished} target domains"
        mark(point, method, f"{name}, round {item.round_index}: {reached}")


def end_labels(
    axes: Axes,
    methods: Sequence[str],
    names: Sequence[str],
    ends: Sequence[float],
    main: str,
    canvas: Canvas,
) -> None:
    """Names right of the lines' ``ends``, moved apart where they would cover one another."""
    low, high = axes.get_ylim()
    per_px = (high - low) / axes.get_window_extent().height
    gap = canvas.font_px * 1.35 * per_px
    edge = axes.get_xlim()[1]
    for number, height in enumerate(spread(ends, gap, low, high)):
        is_main = methods[number] == main
        colour = method_text_colour(methods[number], is_main)
        label = axes.annotate(
            names[number], (edge, ends[number]), xytext=(20, (height - ends[number]) / per_px),
            textcoords="offset points", va="center_baseline", color=colour, annotation_clip=False,
            fontweight="bold" if is_main else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8,
                        "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip
        mark_label(label, methods[number])


def _by_last_accuracy(shown: Sequence[RoundSummary]) -> list[str]:
    last = {item.method: item.accuracy_mean or 0.0 for item in shown}
    return sorted(last, key=lambda method: (-last[method], method))
