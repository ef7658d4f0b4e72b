"""Changes of a sample that keep its class, by modality (ours).

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
    """A batch (B, K, T) or (B, K, H, W), shifted and rotated at random.

    Windows and images are shifted; inertial windows are also rotated, as a sensor sits a little
    differently on the body each day. Pen strokes are only rotated: a stroke is no window of a
    stream, so its start is fixed.
    """
    if modality == "pen":
        return rotated(x, 2, config.rotation_degrees, generator)
    if modality == "imu" and x.dim() == 3:
        x = rotated(x, 3, config.rotation_degrees, generator)
    return shifted(x, config.shift_fraction, generator)


def rotated(x: Tensor, axes: int, degrees: float, generator: torch.Generator) -> Tensor:
    """Each sample (B, K, T) rotated at random, all its vectors together.

    A vector is ``axes`` neighbouring channels: 2 in a plane, 3 in space. ``degrees`` is the
    standard deviation of the angle in every coordinate plane. Channels past the last whole
    vector stay.
    """
    num_vectors = x.shape[1] // axes
    plane = torch.triu_indices(axes, axes, offset=1)
    angle_BP = torch.randn(len(x), plane.shape[1], generator=generator) * math.radians(degrees)
    skew = torch.zeros(len(x), axes, axes)
    skew[:, plane[0], plane[1]] = angle_BP
    rotation = torch.matrix_exp(skew - skew.transpose(1, 2))
    vectors = x[:, : axes * num_vectors].reshape(len(x), num_vectors, axes, x.shape[2])
    moved = torch.einsum("bij,bmjt->bmit", rotation, vectors).flatten(1, 2)
    return torch.cat([moved, x[:, axes * num_vectors :]], dim=1)


def shifted(x: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """The batch rolled by one random offset along time, or along both sides of an image, up to
    ``fraction`` of the length either way."""
    for axis in range(2, x.dim()):
        most = int(fraction * x.shape[axis])
        offset = int(torch.randint(-most, most + 1, (1,), generator=generator))
        x = torch.roll(x, offset, axis)
    return x
