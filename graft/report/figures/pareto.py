"""The figure of accuracy against traffic, and the Pareto front on it."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graft.report.figures.canvas import (
    PERCENT_PX,
    QUIET,
    RULE,
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
)
from graft.report.figures.labels import label_positions
from graft.report.formatting import REFERENCES, bytes_text, display_name, percent_text


class CostedMethod(Protocol):
    """What the figure needs to know of a method; ``complete``: every target domain finished it."""

    @property
    def method(self) -> str: ...
    @property
    def accuracy_mean(self) -> float | None: ...
    @property
    def bytes_down(self) -> float: ...
    @property
    def complete(self) -> bool: ...
    @property
    def count_label(self) -> str: ...


Costed = TypeVar("Costed", bound=CostedMethod)


def accuracy_against_bytes(
    summaries: Sequence[CostedMethod],
    canvas: Canvas = WIDE,
    *,
    owner: str = "all target domains",
    score: str = "accuracy",
) -> str:
    """Each method's mean accuracy against its payload bytes down, on a logarithmic axis.

    The first of ``summaries`` is the main method; ``owner`` names the receiver of the bytes. Ringed
    points on the stepped line are the Pareto front: no other method has at least their accuracy
    for fewer bytes. Only methods that all target domains finished can be on it, and not the
    all-labels reference.
    """
    shown = [item for item in summaries if item.accuracy_mean is not None]
    main = summaries[0].method if summaries else ""
    positions = _log_positions([item.bytes_down for item in shown])
    heights = [item.accuracy_mean or 0.0 for item in shown]

    def draw(figure: Figure) -> None:
        axes = axes_px(figure, left=PERCENT_PX, right=14, top=18, bottom=48)
        axes.grid(axis="x", color=RULE, linewidth=0.8)
        percent_axis(axes)
        unit = "bytes down" if canvas.is_narrow else "payload bytes down"
        axes.set_xlabel(f"{unit}, {owner} (log scale)")
        if not shown:
            return
        _byte_ticks(
            axes, positions, has_zero=any(item.bytes_down == 0 for item in shown), gap_px=64
        )
        axes.set_ylim(padded(heights, 0.12))
        front = pareto_front(shown)
        path = [(positions[shown.index(item)], item.accuracy_mean or 0.0) for item in front]
        axes.step([x for x, _ in path], [y for _, y in path], where="post", color=SOFT,
                  linewidth=1.2, linestyle=(0, (4, 3)), zorder=2)  # fmt: skip
        for x, y in path:
            axes.plot([x], [y], "o", markersize=15, markerfacecolor="none",
                      markeredgecolor=SOFT, markeredgewidth=1.2, zorder=3)  # fmt: skip
        for item, x, y in zip(shown, positions, heights, strict=True):
            (point,) = axes.plot([x], [y], "o", markersize=9, markeredgewidth=0, zorder=4,
                                 color=method_colour(item.method, item.method == main))  # fmt: skip
            spent = f"{percent_text(item.accuracy_mean)}, {bytes_text(item.bytes_down)}"
            mark(point, item.method, f"{display_name(item.method)}: {spent}")
        _label_points(axes, shown, list(zip(positions, heights, strict=True)), path, main, canvas)

    title = f"Mean {score} against payload bytes down, with the Pareto front"
    return draw_svg(draw, canvas=canvas, height_px=440 if canvas.is_narrow else 400, title=title)


def pareto_front(summaries: Sequence[Costed]) -> list[Costed]:
    """The complete methods that no other beats on bytes down and accuracy at once, by bytes.

    The all-labels reference is left out: it learns from labels that a target domain does not have.
    """
    ranked = sorted(
        (
            item
            for item in summaries
            if item.complete and item.method not in REFERENCES and item.accuracy_mean is not None
        ),
        key=lambda item: (item.bytes_down, -(item.accuracy_mean or 0.0)),
    )
    front: list[Costed] = []
    for item in ranked:
        if not front or (item.accuracy_mean or 0.0) > (front[-1].accuracy_mean or 0.0):
            front.append(item)
    return front


def _log_positions(num_bytes: Sequence[float]) -> list[float]:
    """Positions on a log10 axis; zero bytes are half a decade left of the fewest."""
    sent = [math.log10(count) for count in num_bytes if count > 0]
    nothing = min(sent, default=0.0) - 0.5
    return [math.log10(count) if count > 0 else nothing for count in num_bytes]


def _byte_ticks(axes: Axes, positions: Sequence[float], *, has_zero: bool, gap_px: float) -> None:
    low, high = min(positions), max(positions)
    margin = max(0.25, (high - low) * 0.12)
    axes.set_xlim(low - margin, high + margin)
    gap = gap_px * (high - low + 2 * margin) / axes.get_window_extent().width
    decades = range(math.floor(low - margin), math.ceil(high + margin) + 1)
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    ticks, labels = ([low], ["0"]) if has_zero else ([], [])
    # Left of the fewest bytes there is only the position of "0".
    reached = low + 0.35 if has_zero else low - margin
    for position in (decade + math.log10(step) for decade in decades for step in steps):
        if reached <= position <= high + margin:
            ticks.append(position)
            labels.append(bytes_text(10**position))
            reached = position + gap
    axes.set_xticks(ticks, labels)


def _label_points(
    axes: Axes,
    shown: Sequence[CostedMethod],
    points: Sequence[tuple[float, float]],
    path: Sequence[tuple[float, float]],
    main: str,
    canvas: Canvas,
) -> None:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    names = [
        display_name(item.method) + ("" if item.complete else f" ({item.count_label})")
        for item in shown
    ]
    frame = axes.get_window_extent()

    def pixels(point: tuple[float, float]) -> tuple[float, float]:
        x, y = axes.transData.transform(point)
        return float(x), float(y)

    # The front's steps as dots closer than a label is high.
    corners = [corner for (x, y), (x2, y2) in pairwise(path) for corner in ((x, y), (x2, y))]
    corners = [pixels(corner) for corner in (*corners, *path[-1:])]
    steps = [
        (x + (x2 - x) * part / 60, y + (y2 - y) * part / 60)
        for (x, y), (x2, y2) in pairwise(corners)
        for part in range(61)
    ]
    chosen = label_positions(
        [pixels(point) for point in points],
        [
            text_width_px(figure, name, bold=item.method == main)
            for item, name in zip(shown, names, strict=True)
        ],
        canvas.font_px * 1.3,
        (frame.x0, frame.y0, frame.x1 + 10, frame.y1 + 14),
        steps,
    )
    for number, position in enumerate(chosen):
        side = {"left": 0.0, "right": 1.0, "center": 0.5}[position.align]
        leader = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.8, "shrinkA": 1,
                  "shrinkB": 6, "relpos": (side, 0.5)}  # fmt: skip
        label = axes.annotate(
            names[number], points[number], xytext=(position.dx, position.dy),
            textcoords="offset points", ha=position.align, va="center_baseline", zorder=6,
            color=method_text_colour(shown[number].method, shown[number].method == main),
            fontweight="bold" if shown[number].method == main else "normal",
            arrowprops=leader if position.dy else None,
        )  # fmt: skip
        mark_label(label, shown[number].method)
