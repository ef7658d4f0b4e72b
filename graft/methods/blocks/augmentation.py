"""Changes of a sample that leave its class as it is, by modality (ours).

Legend: B samples, K channels, T steps of a window, H and W sides of an image.
"""

import math

import torch
from torch import Tensor

from graft.core.config import GraftConfig
from graft.core.records import Modality


def augment(
    x: Tensor, modality: Modality, config: GraftConfig, generator: torch.Generator
) -> Tensor:
    """A batch (B, K, T) or (B, K, H, W) as it might have been recorded on another day.

    A window starts a little earlier or later and an image lies a little aside; an inertial
    sensor, besides, sits a little turned on the body. A pen's sheet lies a little turned, but its
    stroke is no window of a stream: it begins where it begins.
    """
    if modality == "pen":
        return turned(x, 2, config.rotation_degrees, generator)
    if modality == "imu" and x.dim() == 3:
        x = turned(x, 3, config.rotation_degrees, generator)
    return shifted(x, config.shift_fraction, generator)


def turned(x: Tensor, axes: int, degrees: float, generator: torch.Generator) -> Tensor:
    """Each sample (B, K, T) turned at random, all its vectors together.

    A vector is ``axes`` neighbouring channels: 2 turn in their plane, 3 in space. ``degrees`` is
    the deviation of the turn in every coordinate plane. Channels past the last whole vector stay.
    """
    num_vectors = x.shape[1] // axes
    plane = torch.triu_indices(axes, axes, offset=1)
    angle_BP = torch.randn(len(x), plane.shape[1], generator=generator) * math.radians(degrees)
    skew = torch.zeros(len(x), axes, axes)
    skew[:, plane[0], plane[1]] = angle_BP
    rotation = torch.matrix_exp(skew - skew.transpose(1, 2))
    vectors = x[:, : axes * num_vectors].reshape(len(x), num_vectors, axes, x.shape[2])
    rotated = torch.einsum("bij,bmjt->bmit", rotation, vectors).flatten(1, 2)
    return torch.cat([rotated, x[:, axes * num_vectors :]], dim=1)


def shifted(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """The batch rolled by one random offset along time, or along both sides of an image, up to
    ``share`` of the length either way."""
    for axis in range(2, x.dim()):
        most = int(share * x.shape[axis])
        offset = int(torch.randint(-most, most + 1, (1,), generator=generator))
        x = torch.roll(x, offset, axis)
    return x
