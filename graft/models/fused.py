"""Encoders of the kinds beyond windows and images, and of several streams together.

Legend: B samples a batch, K channels, T samples of a waveform, F features.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, nn

from graft.core.streams import Streams
from graft.core.tasks import InputKind, InputSpec
from graft.models.encoders import IMAGE_ENCODERS, WINDOW_ENCODERS, Encoder, MeanPool, dense_encoder
from graft.models.tokens import TokenEncoder


class PixelScale(nn.Module):
    """Pixels of uint8 as float32 from 0 to 1; floats as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.is_floating_point() else x.float() / 255


class FusedEncoder(nn.Module):
    """One encoder a stream, their features side by side: (B, F) with F the sum of their widths."""

    def __init__(self, encoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(encoders)

    def forward(self, x: Streams) -> Tensor:
        return torch.cat([encoder(x[name]) for name, encoder in self.streams.items()], dim=1)


def _waveform(shape: tuple[int, ...], widths: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Strided convolutions over raw samples, the first as long as a few milliseconds."""
    channels, layers, kernel = shape[0], list[nn.Module](), 64
    for width in widths:
        layers += [
            nn.Conv1d(channels, width, kernel, max(4, kernel // 4), kernel // 2, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        ]
        channels, kernel = width, 8
    return nn.Sequential(*layers, MeanPool()), widths[-1]


def _tokens(width: int, size: int, *, attention: bool) -> Encoder:
    return lambda shape: (TokenEncoder(shape[0], width, size, attention=attention), width)


# By kind of input, ordered from the smallest to the largest.
ENCODERS: Final[Mapping[InputKind, Mapping[str, Encoder]]] = MappingProxyType(
    {
        "window": WINDOW_ENCODERS,
        "image": IMAGE_ENCODERS,
        "audio": {
            "audio-cnn-small": lambda shape: _waveform(shape, (16, 32)),
            "audio-cnn-large": lambda shape: _waveform(shape, (32, 64, 64)),
        },
        "tokens": {
            "tokens-mean": _tokens(32, 2048, attention=False),
            "tokens-attention": _tokens(64, 4096, attention=True),
        },
        "vector": {"mlp": lambda shape: dense_encoder(nn.Flatten(), shape[0])},
    }
)
# Of several streams: the encoder of each kind.
FUSED: Final[Mapping[str, Mapping[InputKind, str]]] = MappingProxyType(
    {
        "fused-small": {
            "window": "cnn-small", "image": "image-cnn-small", "audio": "audio-cnn-small",
            "tokens": "tokens-mean", "vector": "mlp",
        },
        "fused-large": {
            "window": "cnn-medium", "image": "image-cnn-large", "audio": "audio-cnn-large",
            "tokens": "tokens-attention", "vector": "mlp",
        },
    }
)  # fmt: skip


def fused_encoder(name: str, inputs: tuple[InputSpec, ...]) -> tuple[nn.Module, int]:
    """The encoder of streams by a name of ``FUSED``, and F; of one stream, that stream's alone."""
    encoders, features = dict[str, nn.Module](), 0
    for spec in inputs:
        module, width = ENCODERS[spec.kind][FUSED[name][spec.kind]](spec.shape)
        encoders[spec.name] = scaled(spec, module)
        features += width
    module = encoders[inputs[0].name] if len(inputs) == 1 else FusedEncoder(encoders)
    return module, features


def scaled(spec: InputSpec, module: nn.Module) -> nn.Module:
    """An encoder that reads floats, on a stream whose pixels are uint8."""
    if spec.kind == "image" and spec.dtype == "uint8":
        return nn.Sequential(PixelScale(), module)
    return module
