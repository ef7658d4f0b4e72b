"""Laws of the rendered rooms: what is said of each pixel is what geometry says."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from graft.data.public.nyuv2 import DenseSample

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks" / "had"))
from scenes import STYLES, UNKNOWN, Camera, Scene, make_scene, render_scene
from solids import CLASSES, Box, Cylinder, Paint, Room, Solid, Sphere

sys.path.pop(0)

Array = npt.NDArray[np.float64]
GREY = Paint(colour_3=np.full(3, 0.5), wave_3=np.zeros(3), contrast=0.0)
# A quarter of a turn wide, in the origin, looking along z.
CAMERA = Camera(position_3=np.zeros(3), yaw_rad=0.0, pitch_rad=0.0, half_width=1.0)


def scene_of(*solids: Solid, camera: Camera = CAMERA) -> Scene:
    return Scene(
        solids=solids,
        lamp_3=np.array([0.0, -1.0, 0.0]),
        light_3=np.ones(3),
        camera=camera,
        noise=0.0,
        seed=0,
    )


def ball(x: float, y: float, z: float, radius: float) -> Sphere:
    return Sphere(centre_3=np.array([x, y, z]), radius_m=radius, paints=(GREY,))


def points(sample: DenseSample, camera: Camera) -> Array:
    """Where each pixel's surface is, in the camera's frame: (H, W, 3)."""
    height, width = sample.depth_HW.shape
    ray_HW3 = camera.rays(height, width).reshape(height, width, 3)
    return ray_HW3 * sample.depth_HW[:, :, None].astype(np.float64)


def test_the_depth_of_a_sphere_is_its_distance_less_its_radius() -> None:
    sample = render_scene(scene_of(ball(0, 0, 5, 2)), 33, 33)
    # With an odd number of pixels the middle one's ray is the z axis itself.
    assert sample.depth_HW[16, 16] == pytest.approx(5 - 2, rel=1e-6)
    np.testing.assert_allclose(sample.normal_3HW[:, 16, 16], [0, 0, -1], atol=1e-6)
    seen = sample.label_HW == CLASSES.index("sphere")
    distance = np.linalg.norm(points(sample, CAMERA)[seen] - [0, 0, 5], axis=1)
    np.testing.assert_allclose(distance, 2, rtol=1e-5)  # every point lies on the sphere
    # Its outline is the cone of half angle asin(2/5), in the plane z = 1 a circle of radius
    # 2 / sqrt(21) = 0.436; a pixel is 2/33 wide: pi 0.436^2 / (2/33)^2 = 163 pixels.
    assert seen.sum() == pytest.approx(np.pi * 4 / 21 / (2 / 33) ** 2, rel=0.03)


def test_where_a_ray_meets_nothing_all_maps_say_unknown() -> None:
    sample = render_scene(scene_of(ball(0, 0, 5, 1)), 17, 17)
    empty = sample.label_HW == UNKNOWN
    assert empty[0, 0]
    assert not empty[8, 8]
    np.testing.assert_array_equal(sample.depth_HW == 0, empty)
    np.testing.assert_array_equal((sample.normal_3HW == 0).all(0), empty)


def test_what_is_behind_the_camera_is_not_seen() -> None:
    camera = replace(CAMERA, yaw_rad=np.pi)
    assert (render_scene(scene_of(ball(0, 0, 5, 1), camera=camera)).label_HW == UNKNOWN).all()


def test_the_nearer_solid_hides_the_farther() -> None:
    near, far = ball(0, 0, 3, 0.5), ball(0, 0, 6, 2)
    for solids in ((near, far), (far, near)):
        sample = render_scene(scene_of(*solids), 65, 65)
        assert sample.depth_HW[32, 32] == pytest.approx(2.5)
        assert sample.depth_HW[32, 40] > 4  # beside the small one, the large one


def test_a_box_shows_its_face_at_its_distance() -> None:
    box = Box(centre_3=np.array([0, 0, 4.0]), half_3=np.ones(3), yaw_rad=0.0, paints=(GREY,))
    sample = render_scene(scene_of(box), 31, 31)
    seen = sample.label_HW == CLASSES.index("box")
    # The face z = 3 reaches from -1 to 1: a third of the view's width, 10.3 of 31 pixels.
    np.testing.assert_allclose(sample.depth_HW[seen], 3, rtol=1e-6)
    np.testing.assert_allclose(sample.normal_3HW[:, seen].T, [[0, 0, -1]] * seen.sum(), atol=1e-6)
    assert seen.sum() == 11**2
    # Turned by 45 degrees it shows an edge, sqrt(2) before its centre, and two faces.
    turned = render_scene(scene_of(replace(box, yaw_rad=np.pi / 4)), 31, 31)
    assert turned.depth_HW[15, 15] == pytest.approx(4 - np.sqrt(2), rel=1e-5)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(turned.normal_3HW[:, 15, 12], [-half, 0, -half], atol=1e-6)
    np.testing.assert_allclose(turned.normal_3HW[:, 15, 18], [half, 0, -half], atol=1e-6)


def test_a_cylinder_is_round_from_the_side_and_flat_from_above() -> None:
    stump = Cylinder(
        centre_3=np.array([0, 0, 4.0]), radius_m=1.0, half_height_m=0.5, paints=(GREY,)
    )
    side = render_scene(scene_of(stump), 33, 33)
    assert side.depth_HW[16, 16] == pytest.approx(3, rel=1e-6)
    np.testing.assert_allclose(side.normal_3HW[:, 16, 16], [0, 0, -1], atol=1e-6)
    assert (side.normal_3HW[1][side.label_HW != UNKNOWN] == 0).all()
    above = replace(CAMERA, position_3=np.array([0, -3.0, 4.0]), pitch_rad=np.pi / 2)
    lid = render_scene(scene_of(stump, camera=above), 33, 33)
    # From 3 m up, 2.5 m above the lid, which is a disc of radius 1 / 2.5 in the plane z = 1.
    np.testing.assert_allclose(lid.depth_HW[lid.label_HW != UNKNOWN], 2.5, rtol=1e-6)
    assert (lid.label_HW != UNKNOWN).sum() == pytest.approx(np.pi * 0.16 / (2 / 33) ** 2, rel=0.05)


def test_a_room_has_floor_walls_ceiling_and_a_hole_for_a_window() -> None:
    room = Room(
        centre_3=np.array([0, 0, 4.0]),
        half_3=np.array([3.0, 1.0, 5.0]),
        window_4=np.array([-1.0, 1.0, -0.5, 0.5]),
        paints=(GREY, GREY, GREY),
    )
    sample = render_scene(scene_of(room), 91, 91)
    centre = 45
    names = [CLASSES[sample.label_HW[row, centre]] for row in (0, 90)]
    assert names == ["ceiling", "floor"]  # y points down
    assert CLASSES[sample.label_HW[centre, 0]] == "wall"
    assert sample.label_HW[centre, centre] == UNKNOWN
    # The far wall stands 9 m away; its window spans 2 m of it, 2 / 9 of a view of 2: 10 pixels.
    assert (sample.label_HW[centre] == UNKNOWN).sum() == pytest.approx(91 / 9, abs=1)
    assert sample.depth_HW[centre, centre + 10] == pytest.approx(9, rel=1e-6)
    np.testing.assert_allclose(sample.normal_3HW[:, 90, centre], [0, -1, 0], atol=1e-6)
    closed = render_scene(scene_of(replace(room, window_4=np.zeros(4))), 91, 91)
    assert (closed.label_HW != UNKNOWN).all()


def test_a_camera_that_looks_down_sees_the_floor_before_it() -> None:
    room = Room(
        centre_3=np.array([0, -1.5, 4.0]),
        half_3=np.array([3.0, 1.5, 4.5]),
        window_4=np.zeros(4),
        paints=(GREY, GREY, GREY),
    )
    camera = replace(CAMERA, position_3=np.array([0, -1.2, 0]), pitch_rad=np.pi / 6)
    sample = render_scene(scene_of(room, camera=camera), 33, 33)
    # The middle ray falls by 30 degrees: 1.2 m down after 1.2 / sin 30 = 2.4 m.
    assert CLASSES[sample.label_HW[16, 16]] == "floor"
    assert sample.depth_HW[16, 16] == pytest.approx(2.4, rel=1e-6)
    # Up, (0, -1, 0) in the world, is (0, -cos 30, -sin 30) for the camera.
    np.testing.assert_allclose(sample.normal_3HW[:, 16, 16], [0, -np.sqrt(0.75), -0.5], atol=1e-6)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("place", range(3))
def test_normals_are_unit_and_those_of_the_surface_that_the_depth_describes(
    style: str, place: int
) -> None:
    scene = make_scene(STYLES[style], 5, style, place)
    sample = render_scene(scene, 192, 256)
    known = sample.label_HW != UNKNOWN
    normal_HW3 = np.moveaxis(sample.normal_3HW, 0, -1).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(normal_HW3[known], axis=1), 1, atol=1e-6)
    point_HW3 = points(sample, scene.camera)
    facing_HW = (normal_HW3 * point_HW3).sum(-1)
    assert (facing_HW[known] < 1e-6).all()  # towards the camera
    down_HW3, right_HW3 = np.gradient(point_HW3, axis=(0, 1))
    numeric_HW3 = np.cross(down_HW3, right_HW3)
    numeric_HW3 /= np.maximum(np.linalg.norm(numeric_HW3, axis=-1, keepdims=True), 1e-12)
    smooth_HW = _smooth(sample)
    assert smooth_HW.mean() > 0.75
    cosine = (numeric_HW3 * normal_HW3).sum(-1)[smooth_HW]
    angle_deg = np.degrees(np.arccos(cosine.clip(-1, 1)))
    # Planes agree but for float32; at the limb of a ball a difference over two pixels is coarse.
    assert np.median(angle_deg) < 0.05
    assert np.quantile(angle_deg, 0.99) < 0.5
    assert angle_deg.max() < 6


def _smooth(sample: DenseSample) -> npt.NDArray[np.bool_]:
    """Pixels whose four neighbours lie on the same surface: same class, hardly turned."""
    smooth_HW = sample.label_HW != UNKNOWN
    smooth_HW[[0, -1]] = smooth_HW[:, [0, -1]] = False
    for axis in (0, 1):
        for step in (1, -1):
            same = np.roll(sample.label_HW, step, axis) == sample.label_HW
            turned = (np.roll(sample.normal_3HW, step, axis + 1) * sample.normal_3HW).sum(0)
            near = np.abs(np.roll(sample.depth_HW, step, axis) - sample.depth_HW) < 0.1
            smooth_HW &= same & (turned > np.cos(np.radians(8))) & near
    return smooth_HW


def test_equal_keys_give_equal_pictures_and_others_differ() -> None:
    def picture(*keys: object) -> DenseSample:
        return render_scene(make_scene(STYLES["day"], *keys))

    first, again, other = picture(0, "train", 3), picture(0, "train", 3), picture(1, "train", 3)
    for name in ("image_3HW", "label_HW", "depth_HW", "normal_3HW"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_pictures_have_the_layout_they_claim() -> None:
    for name, style in STYLES.items():
        sample = render_scene(make_scene(style, 0, name))
        assert sample.image_3HW.shape == sample.normal_3HW.shape == (3, 48, 64)
        assert sample.label_HW.shape == sample.depth_HW.shape == (48, 64)
        floats = (sample.image_3HW, sample.depth_HW, sample.normal_3HW)
        assert {array.dtype for array in floats} == {np.dtype(np.float32)}
        assert sample.label_HW.dtype == np.int64
        assert sample.image_3HW.min() >= 0
        assert sample.image_3HW.max() <= 1


def test_fifty_scenes_of_a_style_show_every_class_and_are_made_in_seconds() -> None:
    started_s = time.perf_counter()
    samples = [render_scene(make_scene(STYLES["day"], 0, place)) for place in range(50)]
    assert time.perf_counter() - started_s < 5
    shown = np.unique(np.stack([sample.label_HW for sample in samples]))
    assert shown.tolist() == [UNKNOWN, *range(len(CLASSES))]


def test_styles_differ_in_light() -> None:
    def mean_3(name: str) -> Array:
        samples = [render_scene(make_scene(STYLES[name], 0, place)) for place in range(20)]
        return np.stack([sample.image_3HW for sample in samples]).mean((0, 2, 3))

    day_3, evening_3, hall_3 = (mean_3(name) for name in ("day", "evening", "hall"))
    assert evening_3[0] > evening_3[2] * 1.3  # the evening is reddish, the hall bluish
    assert hall_3[2] > hall_3[0] * 1.3
    assert day_3.mean() > evening_3.mean()
