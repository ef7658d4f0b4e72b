"""What a network computes between its input and its logits: the output of each of its stages.

Legend: B samples a batch, C classes, K channels, P positions of a stage (steps, or rows x columns).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from graft.core.streams import Rows
from graft.models import Network

# Where a network's intermediate features are read: the end of each of its stages.
_STAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cnn-small": ("encoder.0", "encoder.1"),
        "cnn-medium": ("encoder.0", "encoder.1", "encoder.2"),
        "cnn-large": ("encoder.0", "encoder.1", "encoder.2"),
        "image-cnn-small": ("encoder.0", "encoder.1"),
        "image-cnn-large": ("encoder.0", "encoder.1", "encoder.2"),
        "mlp": ("encoder.3", "encoder.6"),
        "mlp-500": ("encoder.3", "encoder.6", "encoder.9"),
        "gru": ("encoder.stem", "encoder.gru"),
        "resnetlstman": (
            "encoder.residual.0",
            "encoder.residual.1",
            "encoder.residual.2",
            "encoder.attention_1",
            "encoder.attention_2",
        ),
    }
)
# Their outputs are (B, steps, channels); every other stage puts its channels first.
_STEPS_FIRST = ("encoder.gru", "encoder.attention_1", "encoder.attention_2")


def read_stages(network: Network, architecture: str, x: Rows) -> tuple[list[Tensor], Tensor]:
    """The output of each stage, (B, K, *P) or (B, K), and the logits (B, C).

    An architecture without listed stages is one stage: its feature.
    """
    paths = _STAGES.get(architecture, ())
    known = dict(network.named_modules())
    paths = paths if paths and all(path in known for path in paths) else ("encoder",)
    stages: dict[str, Tensor] = {}

    def record(path: str) -> Any:
        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            stage = output if isinstance(output, Tensor) else output[0]
            stage = stage.transpose(1, 2) if path in _STEPS_FIRST else stage
            stages[path] = stage.to("cpu", torch.float32)  # an encoder may compute elsewhere

        return hook

    hooks = [network.get_submodule(path).register_forward_hook(record(path)) for path in paths]
    try:
        logits_BC = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [stages[path] for path in paths], logits_BC


def over_positions(stage: Tensor) -> Tensor:
    """A stage's mean over its positions, (B, K); a stage without positions as it is."""
    return stage.flatten(2).mean(2) if stage.dim() > 2 else stage
