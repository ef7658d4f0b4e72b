"""A source on the new domain: batch-norm statistics of its samples, stacked features and heads.

No encoder weight of a source changes (A6, ours). The statistics are changed in place and put
back, so that a device never holds a source's weights twice.

Legend: S sources, N samples, C classes, F features.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from graft.core.records import BoolArray
from graft.models import Network
from graft.training import Source, compiled_plan, compiled_statistics, features_of_parts

_BATCH_SIZE = 128


@torch.no_grad()
def renormalise(network: Network, x: Tensor, *, compiled: bool = False) -> None:
    """Re-estimate every batch-norm mean and variance from x, then return to eval mode.

    Batches are strided through x, which is in time order, so that each is a fair sample.
    """
    network.eval()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    if len(x) < 2:
        return
    num_batches = max(1, len(x) // _BATCH_SIZE)
    batches = [x[first::num_batches] for first in range(num_batches)]
    if compiled and all(compiled_plan(network, x, len(batch)) for batch in batches):
        for first, batch in enumerate(batches):
            plan = compiled_plan(network, x, len(batch))
            assert plan is not None
            # The plain average over batches so far.
            compiled_statistics(plan, network, batch, 1 / (first + 1))
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for a plain average over batches
        norm.train()
    for batch in batches:
        network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


@contextmanager
def renormalised(
    network: Network, x: Tensor, *, compiled: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Batch-norm statistics of x inside the block, which gets them by name; the own ones after."""
    own = _statistics(network)
    try:
        renormalise(network, x, compiled=compiled)
        yield _statistics(network)
    finally:
        network.load_state_dict(own, strict=False)


def renormalised_features(
    sources: Sequence[Source], x_N: Tensor, parts: Sequence[Tensor], *, compiled: bool = False
) -> list[Tensor]:
    """Every source's features (S, ., F) of each part of the rows, with statistics of x_N."""
    features = []
    for source in sources:
        with renormalised(source.network, x_N, compiled=compiled):
            features.append(features_of_parts(source.network, parts, compiled=compiled))
    return [stack_padded(part) for part in zip(*features, strict=True)]


@torch.no_grad()
def stack_heads(sources: Sequence[Source]) -> tuple[Tensor, Tensor]:
    """Every source's head: weights (S, F, C), zero-padded to the widest, and biases (S, C)."""
    heads = [source.network.head for source in sources]
    weight_SFC = stack_padded([head.weight for head in heads]).transpose(1, 2).contiguous()
    return weight_SFC, torch.stack([head.bias for head in heads])


def stack_padded(rows: Sequence[Tensor]) -> Tensor:
    """Tensors (N, .) of several widths as one (S, N, F), zero-padded to the widest."""
    widest = max(part.shape[1] for part in rows)
    return torch.stack([nn.functional.pad(part, (0, widest - part.shape[1])) for part in rows])


def with_classes(sources: Sequence[Source], mask_C: BoolArray) -> tuple[Source, ...]:
    """The sources as knowing these classes too: their heads are about to learn them."""
    return tuple(replace(source, mask_C=source.mask_C | mask_C) for source in sources)


def _statistics(network: Network) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}
