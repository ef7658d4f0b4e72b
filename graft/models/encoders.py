"""Encoders of windows (K, T) and of images (K, H, W), and the layers that they are made of.

Legend: B samples a batch, F features, K channels, T length of a window, H, W pixels.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
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


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm1d(outputs),
        nn.ReLU(),
    )


class _Residual(nn.Module):
    """Three convolutions of kernels 8, 5, 3 beside a 1x1 shortcut (HMKD's ResNet branch)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for step, kernel in enumerate((8, 5, 3)):
            layers += [
                nn.ZeroPad1d(((kernel - 1) // 2, kernel // 2)),
                nn.Conv1d(inputs if step == 0 else outputs, outputs, kernel),
                nn.BatchNorm1d(outputs),
                nn.ReLU() if step < 2 else nn.Identity(),
            ]
        self.path = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.path(x) + self.shortcut(x))


class _Attention(nn.Module):
    """Additive attention over time: (B, T, F) -> (B, T, F), each step scaled by its share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        share_BT1 = torch.softmax(self.score(torch.tanh(x)), dim=1)
        return x * share_BT1 * x.shape[1]


class _ResNetLstmAttention(nn.Module):
    """HMKD's teacher (ours, in the form of the authors' published code): two branches."""

    num_features = 256 + 128

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _Residual(channels, 128), _Residual(128, 256), _Residual(256, 256)
        )
        self.lstm_1 = nn.LSTM(channels, 128, batch_first=True)
        self.attention_1 = _Attention(128)
        self.lstm_2 = nn.LSTM(128, 128, batch_first=True)
        self.attention_2 = _Attention(128)

    def forward(self, x: Tensor) -> Tensor:
        steps_BTF = self.attention_1(self.lstm_1(x.transpose(1, 2))[0])
        steps_BTF = self.attention_2(self.lstm_2(steps_BTF)[0])
        return torch.cat([self.residual(x).mean(2), steps_BTF.mean(1)], dim=1)


class Gru(nn.Module):
    """A strided convolution that shortens the window four times, then a GRU; mean over steps."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stem = _conv(channels, 32, 5, stride=4)
        self.gru = nn.GRU(32, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        steps_BTF: Tensor = self.gru(self.stem(x).transpose(1, 2))[0]
        return steps_BTF.mean(1)


def _cnn(shape: tuple[int, ...], widths: tuple[int, ...]) -> tuple[nn.Module, int]:
    channels = (shape[0], *widths)
    blocks = [_conv(*pair, 5, stride=2) for pair in pairwise(channels)]
    return nn.Sequential(*blocks, MeanPool()), widths[-1]


def _mlp_500(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """HMKD's student: three dense layers of 500 on the raw window, dropout before each layer."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(0.1)]
    width = int(np.prod(shape))
    for dropout in (0.2, 0.2, 0.3):
        layers += [nn.Linear(width, 500), nn.ReLU(), nn.Dropout(dropout)]
        width = 500
    return nn.Sequential(*layers), width


def _conv_2d(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _cnn_2d(shape: tuple[int, ...], widths: tuple[int, ...]) -> tuple[nn.Module, int]:
    channels = (shape[0], *widths)
    blocks = [
        _conv_2d(inputs, outputs, stride=2 if i == 1 else 1)
        for i, (inputs, outputs) in enumerate(pairwise(channels))
    ]
    return nn.Sequential(*blocks, MeanPool()), widths[-1]


# Both are ordered from the smallest to the largest.
WINDOW_ENCODERS: Mapping[str, Encoder] = {
    "cnn-small": lambda shape: _cnn(shape, (16, 32)),
    "mlp": lambda shape: dense_encoder(Outline(), 2 * shape[0] * Outline.pieces),
    "gru": lambda shape: (Gru(shape[0], 64), 64),
    "cnn-medium": lambda shape: _cnn(shape, (32, 64, 64)),
    "cnn-large": lambda shape: _cnn(shape, (48, 96, 128)),
    "mlp-500": _mlp_500,
    "resnetlstman": lambda shape: (
        _ResNetLstmAttention(shape[0]),
        _ResNetLstmAttention.num_features,
    ),
}
IMAGE_ENCODERS: Mapping[str, Encoder] = {
    "mlp": lambda shape: dense_encoder(nn.Flatten(), int(np.prod(shape))),
    "image-cnn-small": lambda shape: _cnn_2d(shape, (16, 32)),
    "image-cnn-large": lambda shape: _cnn_2d(shape, (32, 64, 64)),
}
