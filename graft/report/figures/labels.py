"""Where words stand beside the points they name, so that they do not cover one another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import isotonic_regression

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelPlace:
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


def label_places(
    points: Sequence[Point],
    widths: Sequence[float],
    line: float,
    frame: Box,
    avoid: Sequence[Point] = (),
) -> list[LabelPlace]:
    """A place for each point's label, chosen in order: in the frame first, then clear of the
    labels already placed, then clear of every point, then of what else to
    ``avoid``, then near. ``line`` is a label's height.
    """
    choices = [LabelPlace(dx=12, dy=0, align="left"), LabelPlace(dx=-12, dy=0, align="right")]
    for step in range(1, 9):
        for up in (line * step, -line * step):
            choices.append(LabelPlace(dx=0, dy=up, align="center"))
            choices.append(LabelPlace(dx=14, dy=up, align="left"))
            choices.append(LabelPlace(dx=-14, dy=up, align="right"))
    placed: list[Box] = []
    chosen = []
    for point, width in zip(points, widths, strict=True):

        def cost(place: LabelPlace, point: Point = point, width: float = width) -> float:
            left, low, right, high = box = place.box(point, width, line)
            outside = left < frame[0] or low < frame[1] or right > frame[2] or high > frame[3]
            hidden = sum(left - 7 < x < right + 7 and low - 6 < y < high + 6 for x, y in points)
            crossed = any(left < x < right and low < y < high for x, y in avoid)
            covered = sum(_touch(box, other) for other in placed)
            return (
                100 * outside
                + 40 * covered
                + 15 * hidden
                + 5 * crossed
                + math.hypot(place.dx, place.dy) / 12
            )

        best = min(choices, key=cost)
        chosen.append(best)
        placed.append(best.box(point, width, line))
    return chosen


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The positions moved as little as keeps their order, ``gap`` apart and within bounds.

    Where they cannot all fit, the gap is what the bounds allow.
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
    return [float(place) for place in placed]


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
