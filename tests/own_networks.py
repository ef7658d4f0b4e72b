"""Modules as people bring them, for tests that name them by reference."""

import torch
from torch import Tensor, nn

from graft.models import Architecture


class Transformer(nn.Module):
    """Windows as tokens, through LayerNorm and attention; positions are an integer buffer."""

    num_features = 32

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.embed = nn.Linear(shape[0], 32)
        self.place = nn.Embedding(shape[1], 32)
        self.register_buffer("positions", torch.arange(shape[1]))
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.embed(x.transpose(1, 2)) + self.place(self.positions)).mean(1)


class Half(nn.Module):
    """A dense encoder of bfloat16 and float16 tensors that does not say its width."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.Linear(shape[0] * shape[1], 24, dtype=torch.bfloat16)
        self.register_buffer("gain", torch.full((24,), 1.5, dtype=torch.float16))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.first(x.flatten(1).bfloat16())).float() * self.gain


def deep_head(features: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(features), nn.Linear(features, 16), nn.GELU(), nn.Linear(16, classes)
    )


def dense(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1], 20), nn.ReLU()), 20


def wrong_width(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    return dense(shape)[0], 64


def broken(shape: tuple[int, ...]) -> nn.Module:
    raise RuntimeError("no such weights")


DEEP = Architecture(takes="windows", encoder=dense, head=deep_head)
FROZEN = Architecture(takes="windows", encoder=dense, trained=("encoder.1.bias",))
