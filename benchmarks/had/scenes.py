"""Pictures of simple rooms, made from a seed, with exact segmentation, depth and normals.

A room with spheres, boxes and cylinders on its floor, a lamp under its ceiling and sometimes a
window, seen by a camera at one wall. Axes, of the world and of the camera: x right, y down,
z forward; the floor is y = 0. Lengths are metres. Depth is measured along the camera's
z axis, normals face the camera.

Legend: H, W pixels, R rays (one a pixel).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from solids import Box, Cylinder, Paint, Room, Solid, Sphere, finite, yaw_turn

from graft.core.seeding import stream
from graft.data.public.nyuv2 import DenseSample

_Array = npt.NDArray[np.float64]

UNKNOWN = -1
_AMBIENT = 0.35
# What spheres, boxes and cylinders are usually painted: a hint, no more, as in real rooms.
_USUAL_COLOURS = ((0.75, 0.35, 0.3), (0.65, 0.6, 0.3), (0.3, 0.45, 0.7))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Camera:
    """A pinhole; yaw to the right, pitch downwards; ``half_width`` is the tangent of half of the
    horizontal field of view."""

    position_3: _Array
    yaw_rad: float
    pitch_rad: float
    half_width: float

    @property
    def turn_33(self) -> _Array:
        """The camera's axes in the world, as columns."""
        sine, cosine = np.sin(self.pitch_rad), np.cos(self.pitch_rad)
        pitch_33 = np.array([[1.0, 0.0, 0.0], [0.0, cosine, sine], [0.0, -sine, cosine]])
        turn_33: _Array = yaw_turn(self.yaw_rad) @ pitch_33
        return turn_33

    def rays(self, height: int, width: int) -> _Array:
        """A ray through each pixel's centre (R, 3), of length 1 along z, in the camera's frame."""
        pixel = 2 * self.half_width / width
        x_W = (np.arange(width) + 0.5 - width / 2) * pixel
        y_H = (np.arange(height) + 0.5 - height / 2) * pixel
        y_HW, x_HW = np.meshgrid(y_H, x_W, indexing="ij")
        return np.stack([x_HW, y_HW, np.ones_like(x_HW)], axis=-1).reshape(-1, 3)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """Solids, a lamp of a colour (1: white) and a camera; ``seed`` draws the picture's noise."""

    solids: tuple[Solid, ...]
    lamp_3: _Array
    light_3: _Array
    camera: Camera
    noise: float
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneStyle:
    """What pictures of one building share. Geometry but for pitch and crowd is alike in all.

    ``light`` is the lamp's colour, ``paint`` the mean colour of walls and floor, ``noise`` the
    sensor's standard deviation, ``pitch_rad`` and ``crowd`` the least and greatest downward
    look and number of solids.
    """

    light: tuple[float, float, float]
    paint: tuple[float, float, float]
    noise: float
    pitch_rad: tuple[float, float]
    crowd: tuple[int, int]


STYLES: Mapping[str, SceneStyle] = MappingProxyType(
    {
        "day": SceneStyle(
            light=(1.0, 1.0, 1.0), paint=(0.7, 0.7, 0.65), noise=0.02,
            pitch_rad=(0.1, 0.35), crowd=(3, 6),
        ),
        "evening": SceneStyle(
            light=(0.9, 0.7, 0.45), paint=(0.65, 0.6, 0.55), noise=0.03,
            pitch_rad=(0.15, 0.45), crowd=(2, 5),
        ),
        "hall": SceneStyle(
            light=(0.65, 0.8, 1.0), paint=(0.6, 0.65, 0.7), noise=0.04,
            pitch_rad=(0.05, 0.3), crowd=(4, 7),
        ),
    }
)  # fmt: skip


def make_scene(style: SceneStyle, *keys: object) -> Scene:
    """One random scene of a style; equal keys (seed, index in the set, ...) give equal scenes."""
    rng = stream("scenes", *keys)
    half_3 = np.array([rng.uniform(2.0, 3.2), rng.uniform(1.2, 1.6), rng.uniform(2.0, 3.5)])
    middle_3 = np.array([0.0, -half_3[1], half_3[2]])
    camera = Camera(
        position_3=np.array(
            [rng.uniform(-0.4, 0.4) * half_3[0], -rng.uniform(1.1, 1.7), rng.uniform(0.1, 0.3)]
        ),
        yaw_rad=rng.uniform(-0.3, 0.3),
        pitch_rad=rng.uniform(*style.pitch_rad),
        half_width=0.7,
    )
    paint_3 = np.array(style.paint)
    room = Room(
        centre_3=middle_3,
        half_3=half_3,
        window_4=_draw_window(rng, half_3),
        paints=tuple(_draw_paint(rng, paint_3, 0.25) for _ in range(3)),
    )
    lamp_3 = np.array([rng.uniform(-1, 1), -1.9 * half_3[1], rng.uniform(0.6, 1.6) * half_3[2]])
    return Scene(
        solids=(room, *_draw_solids(rng, style, camera, half_3)),
        lamp_3=lamp_3,
        light_3=np.array(style.light) * rng.uniform(0.8, 1.2),
        camera=camera,
        noise=style.noise,
        seed=int(rng.integers(2**62)),
    )


def render_scene(scene: Scene, height: int = 48, width: int = 64) -> DenseSample:
    """The picture and its exact maps; where a ray meets nothing they say unknown."""
    camera = scene.camera
    ray_R3 = camera.rays(height, width)
    direction_R3 = ray_R3 @ camera.turn_33.T
    nearest_R = np.full(len(ray_R3), np.inf)
    normal_R3 = np.zeros_like(ray_R3)
    label_R = np.full(len(ray_R3), UNKNOWN)
    albedo_R3 = np.zeros_like(ray_R3)
    for solid in scene.solids:
        hits = solid.meet(camera.position_3, direction_R3)
        nearer_R = hits.distance_R < nearest_R
        nearest_R[nearer_R] = hits.distance_R[nearer_R]
        normal_R3[nearer_R] = hits.normal_R3[nearer_R]
        label_R[nearer_R] = hits.label_R[nearer_R]
        for index, paint in enumerate(solid.paints):
            painted_R = nearer_R & (hits.paint_R == index)
            reached_R3 = camera.position_3 + nearest_R[painted_R, None] * direction_R3[painted_R]
            albedo_R3[painted_R] = paint.albedo(reached_R3)
    met_R = np.isfinite(nearest_R)
    point_R3 = camera.position_3 + finite(nearest_R)[:, None] * direction_R3
    colour_R3 = _shade(scene, point_R3, normal_R3, albedo_R3)
    colour_R3[~met_R] = scene.light_3  # the window glares
    colour_R3 += scene.noise * stream("picture", scene.seed).normal(size=colour_R3.shape)

    def picture(array_R: _Array) -> _Array:
        return np.moveaxis(array_R.reshape(height, width, -1), -1, 0)

    return DenseSample(
        image_3HW=picture(colour_R3.clip(0, 1)).astype(np.float32),
        label_HW=label_R.reshape(height, width).astype(np.int64),
        depth_HW=np.where(met_R, nearest_R, 0).reshape(height, width).astype(np.float32),
        normal_3HW=picture(normal_R3 @ camera.turn_33).astype(np.float32),
    )


def _shade(scene: Scene, point_R3: _Array, normal_R3: _Array, albedo_R3: _Array) -> _Array:
    """Ambient light plus Lambert's law for the lamp, which fades with the square of distance."""
    way_R3 = scene.lamp_3 - point_R3
    distance_R = np.linalg.norm(way_R3, axis=1)
    facing_R = (way_R3 * normal_R3).sum(1) / distance_R
    lit_R = _AMBIENT + 1.6 * facing_R.clip(0) / (1 + 0.15 * distance_R**2)
    colour_R3: _Array = albedo_R3 * lit_R[:, None] * scene.light_3
    return colour_R3


def _draw_solids(
    rng: np.random.Generator, style: SceneStyle, camera: Camera, half_3: _Array
) -> list[Solid]:
    """Solids on the floor before the camera, none inside another."""
    solids: list[Solid] = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(style.crowd[0], style.crowd[1] + 1))):
        kind, size, slim = rng.integers(3), rng.uniform(0.3, 0.6), rng.uniform(0.5, 1.5)
        ahead = rng.uniform(1.4, 2 * half_3[2] - 0.6)
        aside = rng.uniform(-0.6, 0.6) * ahead
        x, z = (camera.position_3 + yaw_turn(camera.yaw_rad) @ np.array([aside, 0, ahead]))[[0, 2]]
        room_m = half_3[0] - abs(x), 2 * half_3[2] - z, z
        crowded = any(np.hypot(x - a, z - b) < 1.5 * size + c for a, b, c in taken)
        paints = (_draw_paint(rng, np.array(_USUAL_COLOURS[kind]), 0.25),)
        # A solid that does not fit is left out: trying again would favour small ones.
        if crowded or min(room_m) < 1.5 * size:
            continue
        taken.append((x, z, 1.5 * size))
        if kind == 0:
            centre_3 = np.array([x, -size, z])
            solids.append(Sphere(centre_3=centre_3, radius_m=size, paints=paints))
        elif kind == 1:
            sides_3 = np.array([size, size * slim, size * rng.uniform(0.6, 1.0)])
            centre_3, yaw_rad = np.array([x, -sides_3[1], z]), rng.uniform(0, np.pi)
            solids.append(Box(centre_3=centre_3, half_3=sides_3, yaw_rad=yaw_rad, paints=paints))
        else:
            tall = size * slim
            centre_3 = np.array([x, -tall, z])
            solids.append(
                Cylinder(centre_3=centre_3, radius_m=0.8 * size, half_height_m=tall, paints=paints)
            )
    return solids


def _draw_paint(rng: np.random.Generator, mean_3: _Array, spread: float) -> Paint:
    return Paint(
        colour_3=(mean_3 + rng.uniform(-spread, spread, 3)).clip(0.05, 1),
        wave_3=rng.normal(0, 5.0, 3),
        contrast=rng.uniform(0.0, 0.4),
    )


def _draw_window(rng: np.random.Generator, half_3: _Array) -> _Array:
    """A window in every second room."""
    if rng.random() < 0.5:
        return np.zeros(4)
    x, y = rng.uniform(-0.6, 0.6) * half_3[0], -rng.uniform(0.9, 1.3) * half_3[1]
    wide, high = rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.5)
    return np.array([x - wide, x + wide, y - high, y + high])
