"""A network as a flat list of stages, which is what both trainers of many models read."""

from collections.abc import Iterator

import torch
from torch import nn

from graft.models import Network
from graft.models.layers import MeanPool, Outline
from graft.models.windows import Gru

# GRU stands for the GRU and the mean over its steps, as `Gru` has them.
STAGES = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.Flatten,
    nn.GRU, MeanPool, Outline,
)  # fmt: skip
# Large temporaries are fresh memory each time, which costs more than the arithmetic on them.
ROWS_AT_ONCE = 128


def stages_of(network: Network) -> list[tuple[str, nn.Module]] | None:
    """(name, module) of every stage, the head last; None where one has no stacked form."""
    stages = [*_leaves("encoder", network.encoder), ("head", network.head)]
    fits = all(_has_form(module) for _, module in stages)
    floats = all(p.dtype == torch.float32 and p.requires_grad for p in network.parameters())
    return stages if fits and floats else None


def _leaves(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.Sequential | Gru):
        for child_name, child in module.named_children():
            yield from _leaves(f"{name}.{child_name}", child)
    else:
        yield name, module


def _has_form(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        plain = module.bias is None and module.groups == 1 and set(module.dilation) == {1}
        return plain and module.padding_mode == "zeros" and isinstance(module.padding, tuple)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return module.affine and module.track_running_stats and module.momentum is not None
    if isinstance(module, nn.GRU):
        plain = module.num_layers == 1 and module.bias and not module.bidirectional
        return plain and module.batch_first
    return type(module) in STAGES
