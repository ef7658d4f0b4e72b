"""Figures of what was reached: accuracy per round, against traffic, and gains per domain.

Every function gives a standalone SVG for one canvas, the same text for the same figures.
"""

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from graft.report.canvas import (
    INK,
    MAIN,
    QUIET,
    REFERENCE,
    RULE,
    SOFT,
    WIDE,
    Canvas,
    axes_px,
    draw_svg,
    text_width_px,
)
from graft.report.labels import label_places, spread
from graft.report.summary import DomainGain, MethodSummary, RoundSummary
from graft.report.wording import (
    ALL_LABELS,
    LABEL_ONLY,
    MINUS,
    bytes_text,
    display_name,
    points_text,
    shortened,
)

MARKERS = "osD^vPX<>"
NAMED_GAINS = 5


def accuracy_per_round(rounds: Sequence[RoundSummary], canvas: Canvas = WIDE) -> str:
    """Mean accuracy of each method's newcomers by round, with 95 % intervals.

    The first method of ``rounds`` is the main one.
    """
    shown = [item for item in rounds if item.accuracy_mean is not None]
    methods = list(dict.fromkeys(item.method for item in shown))

    def draw(figure: Figure) -> None:
        names = [_marked(method, [r for r in rounds if r.method == method]) for method in methods]
        label_width = max((text_width_px(figure, name, bold=True) for name in names), default=0)
        axes = axes_px(figure, left=48, right=label_width * 0.92 + 26, top=14, bottom=44)
        numbers = sorted({item.round_index for item in rounds}) or [1]
        axes.set_xlim(numbers[0] - 0.4, numbers[-1] + 0.4)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        _percent_axis(axes)
        ends: list[float] = []
        for number, method in enumerate(methods):
            points = [item for item in shown if item.method == method]
            offset = (number - (len(methods) - 1) / 2) * 0.5 / max(1, len(methods))
            _round_line(axes, points, offset, method == methods[0], MARKERS[number % len(MARKERS)])
            ends.append(points[-1].accuracy_mean or 0.0)
        axes.margins(y=0.08)
        _end_labels(axes, methods, names, ends, canvas)

    title = "Mean accuracy per round, with 95 % intervals over newcomers"
    height = max(360, 60 + 19 * len(methods) * (1.25 if canvas.is_narrow else 1))
    return draw_svg(draw, canvas=canvas, height_px=height, title=title)


def accuracy_against_bytes(summaries: Sequence[MethodSummary], canvas: Canvas = WIDE) -> str:
    """Each method's mean accuracy against its payload bytes down, on a logarithmic axis.

    Ringed points on the stepped line are the Pareto front: no other method has at least
    their accuracy for fewer bytes. Only methods that all newcomers finished can be on it, and
    not the all-labels reference.
    """
    shown = [item for item in summaries if item.accuracy_mean is not None]
    places = _log_places([item.bytes_down for item in shown])
    heights = [item.accuracy_mean or 0.0 for item in shown]

    def draw(figure: Figure) -> None:
        axes = axes_px(figure, left=48, right=14, top=18, bottom=48)
        axes.grid(axis="x", color=RULE, linewidth=0.8)
        _percent_axis(axes)
        axes.set_xlabel("payload bytes down, all newcomers (log scale)")
        if not shown:
            return
        _byte_ticks(axes, places, has_zero=any(item.bytes_down == 0 for item in shown))
        axes.set_ylim(_padded(heights, 0.12))
        front = pareto_front(shown)
        path = [(places[shown.index(item)], item.accuracy_mean or 0.0) for item in front]
        axes.step([x for x, _ in path], [y for _, y in path], where="post", color=SOFT,
                  linewidth=1.2, linestyle=(0, (4, 3)), zorder=2)  # fmt: skip
        for x, y in path:
            axes.plot([x], [y], "o", markersize=15, markerfacecolor="none",
                      markeredgecolor=SOFT, markeredgewidth=1.2, zorder=3)  # fmt: skip
        for number, (x, y) in enumerate(zip(places, heights, strict=True)):
            axes.plot([x], [y], "o", markersize=9, color=_colour(shown[number].method, number == 0),
                      markeredgewidth=0, zorder=4)  # fmt: skip
        _label_points(axes, shown, list(zip(places, heights, strict=True)), canvas)

    title = "Mean accuracy against payload bytes down, with the Pareto front"
    return draw_svg(draw, canvas=canvas, height_px=440 if canvas.is_narrow else 400, title=title)


def domain_gains_figure(gains: Sequence[DomainGain], canvas: Canvas = WIDE) -> str:
    """The main method's gain over label-only for each newcomer, lowest first."""
    ranked = sorted(gains, key=lambda item: (item.gain, item.domain_id, item.round_index))
    lowest = "Lowest: " + ",  ".join(
        f"{shortened(item.domain_id)} {points_text(item.gain)}" for item in ranked[:NAMED_GAINS]
    )
    wrapped = textwrap.wrap(lowest, width=46 if canvas.is_narrow else 120)

    def draw(figure: Figure) -> None:
        top = 22 + 17 * len(wrapped)
        axes = axes_px(figure, left=68, right=14, top=top, bottom=44)
        axes.set_xlabel("newcomers, by gain")
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda y, _: f"{y:+.3g}".replace("-", MINUS) if y else "0")
        )
        axes.set_ylabel("points of accuracy")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
        axes.axhline(0, color=SOFT, linewidth=1.2, zorder=3)
        if not ranked:
            return
        values = [item.gain * 100 for item in ranked]
        places = list(range(1, len(values) + 1))
        colours = [REFERENCE if value < 0 else MAIN for value in values]
        room = (canvas.width_px - 82) / len(values)
        if room >= 4:
            axes.bar(places, values, width=0.72, color=colours, linewidth=0, zorder=2)
            # A gain of exactly nothing would leave a hole that looks like a missing newcomer.
            zero = [place for place, value in zip(places, values, strict=True) if value == 0]
            axes.plot(zero, [0.0] * len(zero), "o", color=MAIN, markersize=4, zorder=4)
        else:
            axes.scatter(places, values, s=14, c=colours, linewidths=0, zorder=2)
        axes.set_xlim(0.3, len(values) + 0.7)
        axes.set_ylim(_padded([*values, 0.0], 0.08))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        mean = sum(values) / len(values)
        axes.axhline(mean, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=4)
        # Left of the crossing every newcomer lies below the mean, so the words stay clear.
        axes.annotate(f"mean {points_text(mean / 100)}", (0.5, mean), xytext=(0, 5),
                      textcoords="offset points", color=INK, fontweight="bold")  # fmt: skip
        figure.text(68 / canvas.width_px, 0.995, "\n".join(wrapped), va="top",
                    color=INK, fontsize=canvas.font_px, linespacing=1.3)  # fmt: skip

    title = "Gain over label-only per newcomer, lowest first"
    return draw_svg(draw, canvas=canvas, height_px=330 + 17 * len(wrapped), title=title)


def pareto_front(summaries: Sequence[MethodSummary]) -> list[MethodSummary]:
    """The complete methods that no other beats on bytes down and accuracy at once, by bytes.

    The all-labels reference is left out: it learns from labels that a newcomer does not have.
    """
    ranked = sorted(
        (
            item
            for item in summaries
            if item.complete and item.method != ALL_LABELS and item.accuracy_mean is not None
        ),
        key=lambda item: (item.bytes_down, -(item.accuracy_mean or 0.0)),
    )
    front: list[MethodSummary] = []
    for item in ranked:
        if not front or (item.accuracy_mean or 0.0) > (front[-1].accuracy_mean or 0.0):
            front.append(item)
    return front


def _colour(method: str, is_main: bool) -> str:
    if is_main:
        return MAIN
    return REFERENCE if method == LABEL_ONLY else QUIET


def _text_colour(method: str, is_main: bool) -> str:
    colour = _colour(method, is_main)
    return SOFT if colour == QUIET else colour


def _marked(method: str, rounds: Sequence[RoundSummary]) -> str:
    finished, wanted = sum(r.finished for r in rounds), sum(r.wanted for r in rounds)
    return display_name(method) + ("" if finished == wanted else f" ({finished} of {wanted})")


def _percent_axis(axes: Axes) -> None:
    # Integer per cent only where the axis spans enough of them.
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y * 100:.4g} %"))


def _padded(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * share or 0.05
    return low - room, high + room


def _round_line(
    axes: Axes, points: Sequence[RoundSummary], offset: float, is_main: bool, marker: str
) -> None:
    colour = _colour(points[0].method, is_main)
    places = [item.round_index + offset for item in points]
    means = [item.accuracy_mean or 0.0 for item in points]
    order = 5 if is_main else 3
    axes.plot(places, means, color=colour, linewidth=2.6 if is_main else 1.3, marker=marker,
              markersize=8 if is_main else 5.5, markeredgewidth=0, zorder=order)  # fmt: skip
    for place, item in zip(places, points, strict=True):
        if item.accuracy_interval is not None:
            axes.plot([place, place], item.accuracy_interval, color=colour,
                      linewidth=2 if is_main else 1, zorder=order - 1)  # fmt: skip


def _end_labels(
    axes: Axes, methods: Sequence[str], names: Sequence[str], ends: Sequence[float], canvas: Canvas
) -> None:
    low, high = axes.get_ylim()
    per_px = (high - low) / axes.get_window_extent().height
    gap = canvas.font_px * 1.35 * per_px
    edge = axes.get_xlim()[1]
    for number, height in enumerate(spread(ends, gap, low, high)):
        is_main = number == 0
        colour = _text_colour(methods[number], is_main)
        axes.annotate(
            names[number], (edge, ends[number]), xytext=(20, (height - ends[number]) / per_px),
            textcoords="offset points", va="center_baseline", color=colour, annotation_clip=False,
            fontweight="bold" if is_main else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8,
                        "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


def _log_places(num_bytes: Sequence[int]) -> list[float]:
    """Positions on a log10 axis; nothing sent stands half a decade left of the least sent."""
    sent = [math.log10(count) for count in num_bytes if count > 0]
    nothing = min(sent, default=0.0) - 0.5
    return [math.log10(count) if count > 0 else nothing for count in num_bytes]


def _byte_ticks(axes: Axes, places: Sequence[float], *, has_zero: bool) -> None:
    low, high = min(places), max(places)
    room = max(0.25, (high - low) * 0.12)
    axes.set_xlim(low - room, high + room)
    first = low + (0.35 if has_zero else -room)
    decades = range(math.floor(low - room), math.ceil(high + room) + 1)
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    ticks = [n + math.log10(step) for n in decades for step in steps]
    ticks = [tick for tick in ticks if first <= tick <= high + room]
    labels = [bytes_text(10**tick) for tick in ticks]
    if has_zero:
        ticks, labels = [low, *ticks], ["0", *labels]
    axes.set_xticks(ticks, labels)


def _label_points(
    axes: Axes,
    shown: Sequence[MethodSummary],
    points: Sequence[tuple[float, float]],
    canvas: Canvas,
) -> None:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    names = [
        display_name(item.method) + ("" if item.complete else f" ({item.count_label})")
        for item in shown
    ]
    frame = axes.get_window_extent()
    centres = [tuple(map(float, axes.transData.transform(point))) for point in points]
    chosen = label_places(
        [(x, y) for x, y in centres],
        [text_width_px(figure, name, bold=number == 0) for number, name in enumerate(names)],
        canvas.font_px * 1.3,
        (frame.x0, frame.y0, frame.x1 + 10, frame.y1 + 14),
    )
    for number, place in enumerate(chosen):
        side = {"left": 0.0, "right": 1.0, "center": 0.5}[place.align]
        axes.annotate(
            names[number], points[number], xytext=(place.dx, place.dy),
            textcoords="offset points", ha=place.align, va="center_baseline", zorder=6,
            color=_text_colour(shown[number].method, number == 0),
            fontweight="bold" if number == 0 else "normal",
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.8, "shrinkA": 1,
                        "shrinkB": 6, "relpos": (side, 0.5)},
        )  # fmt: skip
