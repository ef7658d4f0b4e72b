"""What a change of a sample leaves as it was."""

import math

import pytest
import torch

from graft.core.config import GraftConfig
from graft.methods.blocks.targets import augment, rotated, shifted

CONFIG = GraftConfig()


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_turn_keeps_lengths_and_angles_within_a_sample() -> None:
    x = random(4, 7, 9)  # two triples and one channel more
    after = rotated(x, 3, 20.0, drawn())
    first, second = x[:, :3], x[:, 3:6]
    for one, other in ((first, first), (first, second)):
        pair = after[:, :3], after[:, :3] if other is first else after[:, 3:6]
        torch.testing.assert_close((pair[0] * pair[1]).sum(1), (one * other).sum(1))
    torch.testing.assert_close(after[:, 6], x[:, 6])
    assert (after[:, :6] - x[:, :6]).abs().max() > 0.05


def test_the_angle_of_a_turn_has_the_deviation_asked_for() -> None:
    x = torch.eye(3)[None].repeat(4000, 1, 1)  # the turned axes are the rotation itself
    after = rotated(x, 3, 10.0, drawn())
    cosine_B = (torch.einsum("bii->b", after) - 1) / 2
    angle_B = torch.rad2deg(torch.arccos(cosine_B.clamp(-1, 1)))
    # Three normal components of 10 degrees: the mean square of the angle is 300.
    assert float((angle_B**2).mean()) == pytest.approx(300, rel=0.05)


def test_a_turn_in_the_plane_by_hand() -> None:
    x = torch.tensor([[[3.0], [4.0], [1.0]]])  # the point (3, 4) and a channel beside it
    after = rotated(x, 2, 30.0, drawn())
    angle = float(torch.randn(1, 1, generator=drawn())) * math.radians(30)
    cosine, sine = math.cos(angle), math.sin(angle)
    wanted = torch.tensor([[[3 * cosine + 4 * sine], [-3 * sine + 4 * cosine], [1.0]]])
    torch.testing.assert_close(after, wanted)


def test_no_turn_is_no_change() -> None:
    x = random(3, 6, 5)
    torch.testing.assert_close(rotated(x, 3, 0.0, drawn()), x)


def test_a_shift_rolls_the_whole_batch_and_no_further_than_asked() -> None:
    x = random(2, 3, 32)
    offsets = set()
    for seed in range(60):
        after = shifted(x, 1 / 16, drawn(seed))
        offsets.add(next(k for k in range(-2, 3) if torch.equal(after, torch.roll(x, k, 2))))
    assert offsets == {-2, -1, 0, 1, 2}
    assert torch.equal(shifted(x, 1 / 40, drawn()), x)  # less than one step


def test_an_image_moves_along_both_sides() -> None:
    x = random(1, 1, 16, 32)
    moved = {
        (down, aside)
        for seed in range(40)
        for down in (-1, 0, 1)
        for aside in (-2, -1, 0, 1, 2)
        if torch.equal(shifted(x, 1 / 16, drawn(seed)), torch.roll(x, (down, aside), (2, 3)))
    }
    assert len({down for down, _ in moved}) == 3
    assert len({aside for _, aside in moved}) == 5


def test_each_modality_gets_what_fits_it() -> None:
    window, image = random(2, 6, 32), random(2, 1, 16, 16)
    shift_only = shifted(window, CONFIG.shift_fraction, drawn())
    for modality in ("emg", "audio", "sequence"):
        assert torch.equal(augment(window, modality, CONFIG, drawn()), shift_only)
    in_plane = augment(window, "pen", CONFIG, drawn())
    assert torch.equal(in_plane, rotated(window, 2, CONFIG.rotation_degrees, drawn()))
    assert not torch.allclose(augment(window, "imu", CONFIG, drawn()).sum(2), window.sum(2))
    assert augment(image, "image", CONFIG, drawn()).sum() == pytest.approx(float(image.sum()), 1e-4)
    assert math.isfinite(float(augment(image, "imu", CONFIG, drawn()).sum()))
