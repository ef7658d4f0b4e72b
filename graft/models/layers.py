"""Layers and blocks that encoders of windows and of images share.

Legend: B samples a batch, K channels, T length.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

# A sample's shape -> the network that gives (B, F) features of (B, *shape), and F.
Encoder = Callable[[tuple[int, ...]], tuple[nn.Module, int]]


class MeanPool(nn.Module):
    """Mean over every position: (B, K, ...) -> (B, K). With few labels a maximum beside it
    costs accuracy: it remembers single spikes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


class Outline(nn.Module):
    """Mean and mean absolute deviation of each channel in sixteen pieces: (B, K, T) -> (B, 32K).

    What a dense layer can use of a window whose phase is random, as in raw EMG.
    """

    pieces = 16

    def forward(self, x: Tensor) -> Tensor:
        deviation_BKT = (x - x.mean(2, keepdim=True)).abs()
        pooled = [
            nn.functional.adaptive_avg_pool1d(each, self.pieces) for each in (x, deviation_BKT)
        ]
        return torch.cat(pooled, dim=1).flatten(1)


def dense_encoder(first: nn.Module, width: int) -> tuple[nn.Module, int]:
    """Two dense layers of 128 and 64 behind ``first``, which gives (B, width)."""
    layers: list[nn.Module] = [first]
    for outputs in (128, 64):
        layers += [nn.Linear(width, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
        width = outputs
    return nn.Sequential(*layers), width
