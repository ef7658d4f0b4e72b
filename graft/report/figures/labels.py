"""Positions of labels beside the points they name, so that they do not overlap."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import isotonic_regression

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelPosition:
    """A label's anchor, as an offset in pixels from its point, and its side of the anchor."""

    dx: float
    dy: float
    align: Literal["left", "right", "center"]

    def box(self, point: Point, width: float, height: float) -> Box:
        """Left, bottom, right and top of the label in pixels."""
        share = {"left": 0.0, "center": 0.5, "right": 1.0}[self.align]
        left = point[0] + self.dx - share * width
        middle = point[1] + self.dy
        return (left, middle - height / 2, left + width, middle + height / 2)


def label_positions(
    points: Sequence[Point],
    widths: Sequence[float],
    line: float,
    frame: Box,
    avoid: Sequence[Point] = (),
) -> list[LabelPosition]:
    """Choose a position for each point's label, in the order of the points.

    Preferred in this order: within the frame, clear of labels already placed, clear of points,
    clear of what else to ``avoid``, close to the point. ``line`` is a label's height.
    """
    choices = [LabelPosition(dx=12, dy=0, align="left"), LabelPosition(dx=-12, dy=0, align="right")]
    for step in range(1, 9):
        for up in (line * step, -line * step):
            choices.append(LabelPosition(dx=0, dy=up, align="center"))
            choices.append(LabelPosition(dx=14, dy=up, align="left"))
            choices.append(LabelPosition(dx=-14, dy=up, align="right"))
    placed: list[Box] = []
    chosen = []
    for point, width in zip(points, widths, strict=True):

        def cost(position: LabelPosition, point: Point = point, width: float = width) -> float:
            left, low, right, high = box = position.box(point, width, line)
            outside = left < frame[0] or low < frame[1] or right > frame[2] or high > frame[3]
            hidden = sum(left - 7 < x < right + 7 and low - 6 < y < high + 6 for x, y in points)
            crossed = any(left < x < right and low < y < high for x, y in avoid)
            covered = sum(_touch(box, other) for other in placed)
            return (
                100 * outside
                + 40 * covered
                + 15 * hidden
                + 5 * crossed
                + math.hypot(position.dx, position.dy) / 12
            )

        best = min(choices, key=cost)
        chosen.append(best)
        placed.append(best.box(point, width, line))
    return chosen


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions as little as possible so that they keep their order, a gap and the bounds.

    Where the bounds are too narrow, the gap is smaller.
    """
    if not positions:
        return []
    gap = min(gap, (high - low) / max(1, len(positions) - 1))
    order = np.argsort(positions, kind="stable")
    offsets = gap * np.arange(len(positions))
    # Least squares under an order, as rising positions of the first label without the gaps.
    starts = isotonic_regression(np.asarray(positions)[order] - offsets).x
    placed = np.empty(len(positions))
    placed[order] = np.clip(starts, low, high - offsets[-1]) + offsets
    return [float(position) for position in placed]


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
