"""Encoders of images (K, H, W)."""

from collections.abc import Mapping

import numpy as np
from torch import nn

from graft.models.layers import Encoder, MeanPool, dense_encoder


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _cnn(shape: tuple[int, ...], widths: tuple[int, ...]) -> tuple[nn.Module, int]:
    channels = (shape[0], *widths)
    blocks = [
        _conv(channels[i], channels[i + 1], stride=2 if i == 1 else 1) for i in range(len(widths))
    ]
    return nn.Sequential(*blocks, MeanPool()), widths[-1]


# Ordered from the smallest to the largest.
IMAGE_ENCODERS: Mapping[str, Encoder] = {
    "mlp": lambda shape: dense_encoder(nn.Flatten(), int(np.prod(shape))),
    "image-cnn-small": lambda shape: _cnn(shape, (16, 32)),
    "image-cnn-large": lambda shape: _cnn(shape, (32, 64, 64)),
}
