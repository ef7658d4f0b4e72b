"""One trunk with a head for each output: images' dense maps, or one vector a sample.

Legend: B samples, F features, C outputs, H, W pixels; sizes of a vector task lack H and W.
"""

import copy
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.errors import ArchitectureError, ConfigError
from graft.models import Network

OutputKind = Literal["classes", "amount", "direction"]
IGNORED = -1
_GROUPS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputTask:
    """What a head gives and what its targets are.

    classes: ``num_outputs`` logits; targets (B, H, W) integers, -1 where unknown.
    amount: non-negative amounts such as depths; targets (B, C, H, W), 0 where unknown.
    direction: a unit vector; targets (B, C, H, W) of length 1, all zero where unknown.
    """

    name: str
    kind: OutputKind
    num_outputs: int


class HeadedNetwork(nn.Module):
    """A trunk that gives features (B, F, H, W) or (B, F), and a named head for each task."""

    def __init__(self, trunk: nn.Module, num_features: int, *, dense: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.num_features = num_features
        self.dense = dense
        self.heads = nn.ModuleDict()
        self.tasks: dict[str, OutputTask] = {}

    def with_head(self, task: OutputTask, seed: int) -> "HeadedNetwork":
        """A copy that has a freshly initialised head for one more task.

        Raises ConfigError for a name that is taken already.
        """
        if task.name in self.tasks:
            raise ConfigError(f"task {task.name!r}: got a second of that name, wanted a new one")
        grown = copy.deepcopy(self)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            head = _dense_head if self.dense else nn.Linear
            grown.heads[task.name] = head(self.num_features, task.num_outputs)
        grown.tasks[task.name] = task
        return grown

    def features(self, x: Tensor) -> Tensor:
        """The features that all heads share."""
        return cast(Tensor, self.trunk(x))

    def output(self, features: Tensor, name: str) -> Tensor:
        """One head's output (B, C, H, W) or (B, C); directions have length 1."""
        output: Tensor = self.heads[name](features)
        return F.normalize(output, dim=1) if self.tasks[name].kind == "direction" else output

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Every head's output by its task's name."""
        features = self.features(x)
        return {name: self.output(features, name) for name in self.tasks}


def dense_network(width: int, seed: int) -> HeadedNetwork:
    """A small convolutional encoder and decoder for images whose sides divide by 8; no heads.

    Features are ``width`` channels at half of the image's resolution; heads scale up.
    Raises ArchitectureError for a width that four groups cannot share.
    """
    if width < 1 or width % _GROUPS:
        raise ArchitectureError(f"width: got {width}, wanted a multiple of {_GROUPS}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return HeadedNetwork(_DenseTrunk(width), width, dense=True)


def headed(network: Network, task: OutputTask) -> HeadedNetwork:
    """A classifier of the zoo as a network whose tasks can grow: its head becomes the first."""
    grown = HeadedNetwork(copy.deepcopy(network.encoder), network.num_features, dense=False)
    grown.heads[task.name] = copy.deepcopy(network.head)
    grown.tasks[task.name] = task
    return grown


def _dense_head(num_features: int, num_outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(num_features, num_features, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(num_features, num_outputs, 1),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
    )


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    # Group and not batch normalisation: a new stage's light must not become the statistics by
    # which old stages' images are normalised.
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.GroupNorm(_GROUPS, outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.GroupNorm(_GROUPS, outputs),
        nn.ReLU(),
    )


class _DenseTrunk(nn.Module):
    """Three scales down, two up, each with what the way down saw at that scale added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down_2 = _block(3, width, 2)
        self.down_4 = _block(width, 2 * width, 2)
        self.down_8 = _block(2 * width, 4 * width, 2)
        self.up_4 = _block(4 * width, 2 * width, 1)
        self.up_2 = _block(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down_2(x)
        middle = self.down_4(fine)
        coarse = self.down_8(middle)
        middle = middle + self.up_4(F.interpolate(coarse, scale_factor=2.0))
        features: Tensor = fine + self.up_2(F.interpolate(middle, scale_factor=2.0))
        return features
