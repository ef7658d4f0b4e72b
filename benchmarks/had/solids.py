"""Solids and rooms that rays meet: the geometry of the rendered scenes.

Axes are x right, y down, z forward; lengths are metres.

Legend: R rays, each from one origin along its own direction.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.float64]

CLASSES = ("floor", "wall", "ceiling", "sphere", "box", "cylinder")
_FLOOR, _WALL, _CEILING, _SPHERE, _BOX, _CYLINDER = range(len(CLASSES))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Paint:
    """A colour (0 to 1) that waves towards darkness along ``wave_3`` (radians a metre)."""

    colour_3: _Array
    wave_3: _Array
    contrast: float

    def albedo(self, point_R3: _Array) -> _Array:
        """The share of each colour that is thrown back: (R, 3)."""
        dark_R = self.contrast * (0.5 + 0.5 * np.sin(point_R3 @ self.wave_3))
        albedo_R3: _Array = self.colour_3 * (1 - dark_R)[:, None]
        return albedo_R3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hits:
    """Where rays meet a solid: distance in units of the ray (infinite: never), outward normal,
    class index and paint index."""

    distance_R: _Array
    normal_R3: _Array
    label_R: npt.NDArray[np.int64]
    paint_R: npt.NDArray[np.int64]


class Solid(Protocol):
    """A thing that rays meet."""

    @property
    def paints(self) -> tuple[Paint, ...]:
        """What ``Hits.paint_R`` indexes."""
        ...

    def meet(self, origin_3: _Array, direction_R3: _Array) -> Hits: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sphere:
    """A ball."""

    centre_3: _Array
    radius_m: float
    paints: tuple[Paint, ...]

    def meet(self, origin_3: _Array, direction_R3: _Array) -> Hits:
        span = _round_span(origin_3 - self.centre_3, direction_R3, self.radius_m)
        distance_R = _span_start(*span)
        point_R3 = origin_3 + finite(distance_R)[:, None] * direction_R3
        normal_R3 = (point_R3 - self.centre_3) / self.radius_m
        return _hits(distance_R, normal_R3, _SPHERE)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Box:
    """A box of half sides ``half_3``, turned by ``yaw_rad`` about the vertical."""

    centre_3: _Array
    half_3: _Array
    yaw_rad: float
    paints: tuple[Paint, ...]

    def meet(self, origin_3: _Array, direction_R3: _Array) -> Hits:
        turn_33 = yaw_turn(self.yaw_rad)
        own_R3 = direction_R3 @ turn_33
        entry_R3, exit_R3 = _slab_spans((origin_3 - self.centre_3) @ turn_33, own_R3, self.half_3)
        side_R = entry_R3.argmax(1)
        distance_R = _span_start(entry_R3.max(1), exit_R3.min(1))
        return _hits(distance_R, _face_normals(own_R3, side_R) @ turn_33.T, _BOX)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cylinder:
    """An upright cylinder."""

    centre_3: _Array
    radius_m: float
    half_height_m: float
    paints: tuple[Paint, ...]

    def meet(self, origin_3: _Array, direction_R3: _Array) -> Hits:
        start_3 = origin_3 - self.centre_3
        flat = np.array([1.0, 0.0, 1.0])
        side_entry_R, side_exit_R = _round_span(start_3 * flat, direction_R3 * flat, self.radius_m)
        half_3 = np.array([np.inf, self.half_height_m, np.inf])
        entry_R3, exit_R3 = _slab_spans(start_3, direction_R3, half_3)
        distance_R = _span_start(
            np.maximum(side_entry_R, entry_R3[:, 1]), np.minimum(side_exit_R, exit_R3[:, 1])
        )
        point_R3 = start_3 + finite(distance_R)[:, None] * direction_R3
        lid_R3 = _face_normals(direction_R3, np.ones(len(direction_R3), np.int64))
        on_lid_R = entry_R3[:, 1] > side_entry_R
        normal_R3 = np.where(on_lid_R[:, None], lid_R3, point_R3 * flat / self.radius_m)
        return _hits(distance_R, normal_R3, _CYLINDER)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Room:
    """A box seen from within; ``paints`` are the floor's, the walls' and the ceiling's.

    Rays that leave through the window in the far wall (low and high x, low and high y) meet
    nothing; an empty window is no window.
    """

    centre_3: _Array
    half_3: _Array
    window_4: _Array
    paints: tuple[Paint, ...]

    def meet(self, origin_3: _Array, direction_R3: _Array) -> Hits:
        _, exit_R3 = _slab_spans(origin_3 - self.centre_3, direction_R3, self.half_3)
        side_R = exit_R3.argmin(1)
        distance_R = exit_R3.min(1)
        point_R3 = origin_3 + distance_R[:, None] * direction_R3
        low_x, high_x, low_y, high_y = self.window_4
        x_R, y_R = point_R3[:, 0], point_R3[:, 1]
        outside_R = (side_R == 2) & (direction_R3[:, 2] > 0)
        outside_R &= (x_R > low_x) & (x_R < high_x) & (y_R > low_y) & (y_R < high_y)
        distance_R[outside_R] = np.inf
        level_R = np.where(direction_R3[:, 1] > 0, _FLOOR, _CEILING)
        label_R = np.where(side_R == 1, level_R, _WALL)
        return Hits(
            distance_R=distance_R,
            normal_R3=_face_normals(direction_R3, side_R),
            label_R=label_R,
            paint_R=label_R,
        )


def yaw_turn(angle_rad: float) -> _Array:
    """The matrix that turns z towards x about the vertical."""
    sine, cosine = np.sin(angle_rad), np.cos(angle_rad)
    return np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])


def _slab_spans(origin_3: _Array, direction_R3: _Array, half_3: _Array) -> tuple[_Array, _Array]:
    """Where rays enter and leave each of three slabs of half widths ``half_3`` about zero."""
    # A ray along a slab divides by nearly zero instead of zero, which gives the same side.
    safe_R3 = np.where(direction_R3 == 0, 1e-12, direction_R3)
    low_R3, high_R3 = (-half_3 - origin_3) / safe_R3, (half_3 - origin_3) / safe_R3
    return np.minimum(low_R3, high_R3), np.maximum(low_R3, high_R3)


def _round_span(start_3: _Array, direction_R3: _Array, radius: float) -> tuple[_Array, _Array]:
    """Where rays enter and leave a ball about zero (or, in a plane, a circle); inf, -inf: never."""
    # The square of a ray that is a point in the plane stays above zero: in or out for ever.
    square_R = (direction_R3**2).sum(1).clip(1e-24)
    along_R = direction_R3 @ start_3
    inside_R = along_R**2 - square_R * (start_3 @ start_3 - radius**2)
    root_R = np.sqrt(inside_R.clip(0))
    met_R = inside_R > 0
    entry_R = np.where(met_R, (-along_R - root_R) / square_R, np.inf)
    exit_R = np.where(met_R, (-along_R + root_R) / square_R, -np.inf)
    return entry_R, exit_R


def _span_start(entry_R: _Array, exit_R: _Array) -> _Array:
    """The distance of a span's beginning; infinite for one that is empty or behind."""
    return np.where((entry_R <= exit_R) & (entry_R > 0), entry_R, np.inf)


def _face_normals(direction_R3: _Array, side_R: npt.NDArray[np.int64]) -> _Array:
    """The unit vectors along axis ``side_R`` that face the ray."""
    axes_R3 = np.eye(3)[side_R]
    normal_R3: _Array = -np.sign(direction_R3) * axes_R3
    return normal_R3


def finite(distance_R: _Array) -> _Array:
    """Distances with zero where the ray meets nothing."""
    return np.where(np.isfinite(distance_R), distance_R, 0)


def _hits(distance_R: _Array, normal_R3: _Array, label: int) -> Hits:
    zeros_R = np.zeros(len(distance_R), np.int64)
    return Hits(
        distance_R=distance_R, normal_R3=normal_R3, label_R=zeros_R + label, paint_R=zeros_R
    )
