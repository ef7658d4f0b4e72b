"""Modules as people bring them, for tests that name them by reference."""

import torch
from torch import Tensor, nn

from graft.models import Architecture, Backbone, backbone_hash


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


class Counted(nn.Module):
    """A small pretrained encoder of windows that counts the rows it reads."""

    rows_read = 0

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.Conv1d(shape[0], 8, 5, stride=2)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "meta":
            Counted.rows_read += len(x)
        return torch.relu(self.last(torch.relu(self.norm(self.first(x))).mean(2)))


def counted(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    return Counted(shape), 24


def public_weights() -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return {n: t for n, t in Counted((6, 64)).state_dict().items() if "tracked" not in n}


PUBLIC = Backbone(
    name="counted",
    licence="Apache-2.0",
    weights=public_weights,
    sha256=backbone_hash("counted", public_weights()),
)
ON_PUBLIC = Architecture(takes="window", encoder=counted, backbone=PUBLIC)
NORMS_ON_PUBLIC = Architecture(takes="window", encoder=counted, backbone=PUBLIC, trained=("norms",))
LORA_ON_PUBLIC = Architecture(takes="window", encoder=counted, backbone=PUBLIC, trained=("lora4",))
WHOLE_ON_PUBLIC = Architecture(takes="window", encoder=counted, backbone=PUBLIC, trained=("whole",))
