"""Changes of a sample that leave its class as it is, by modality (ours).

Legend: B samples, K channels, T steps of a window, H and W sides of an image.
"""

import math

import torch
from torch import Tensor

from graft.config import GrowthConfig
from graft.values import Modality


def augment(
    x: Tensor, modality: Modality, config: GrowthConfig, generator: torch.Generator
) -> Tensor:
    """A batch (B, K, T) or (B, K, H, W) as it might have been recorded on another day.

    A window starts a little earlier or later and an image lies a little aside; an inertial
    sensor, besides, sits a little turned on the body. A pen's stroke is no window of a stream:
    it begins where it begins, and stays as it is.
    """
    if modality == "pen":
        return x
    if modality == "imu" and x.dim() == 3:
        x = turned(x, config.rotation_degrees, generator)
    return shifted(x, config.shift_share, generator)


def turned(x: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Each sample's channel triples (x, y, z of one sensor) turned together about a random
    axis; ``degrees`` is the deviation of the turn about each coordinate axis. Channels past the
    last whole triple stay."""
    num_triples = x.shape[1] // 3
    turn_B3 = torch.randn(len(x), 3, generator=generator) * math.radians(degrees)
    across_B33 = torch.zeros(len(x), 3, 3)
    for row, column, axis, sign in ((0, 1, 2, -1), (0, 2, 1, 1), (1, 2, 0, -1)):
        across_B33[:, row, column] = sign * turn_B3[:, axis]
        across_B33[:, column, row] = -sign * turn_B3[:, axis]
    rotation_B33 = torch.matrix_exp(across_B33)
    triples = x[:, : 3 * num_triples].reshape(len(x), num_triples, 3, x.shape[2])
    rotated = torch.einsum("bij,bmjt->bmit", rotation_B33, triples).flatten(1, 2)
    return torch.cat([rotated, x[:, 3 * num_triples :]], dim=1)


def shifted(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """The batch rolled by one random offset along time, or along both sides of an image, up to
    ``share`` of the length either way."""
    for axis in range(2, x.dim()):
        most = int(share * x.shape[axis])
        offset = int(torch.randint(-most, most + 1, (1,), generator=generator))
        x = torch.roll(x, offset, axis)
    return x
