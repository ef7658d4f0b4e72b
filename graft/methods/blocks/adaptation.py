"""A source on the new domain: batch-norm statistics of its samples, stacked features and heads.

No encoder weight of a source changes (A6, ours). The statistics are changed in place and put
back, so that a device never holds a source's weights twice.

Legend: S sources, N samples, C classes, F features.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from graft.core.records import BoolArray
from graft.core.streams import Rows
from graft.models import Network
from graft.training import Source, compiled_forward, features_in_batches, features_of_parts

_BATCH_SIZE = 128


@torch.no_grad()
def renormalise(network: Network, x: Rows, *, compiled: bool = False) -> None:
    """Re-estimate every batch-norm mean and variance from x, then return to eval mode.

    Batches are strided through x, which is in time order, so that each is a fair sample.
    """
    network.eval()
    norms = network.moving_norms()
    if len(x) < 2 or not norms:
        return
    num_batches = _num_batches(x)
    forward = compiled_forward(network, x) if compiled else None
    if forward is not None:
        forward.renormalise(num_batches)
        forward.write_statistics()
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for a plain average over batches
        norm.train()
    for first in range(num_batches):
        network(x[first::num_batches])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def _num_batches(x: Rows) -> int:
    return max(1, len(x) // _BATCH_SIZE)


def teacher_inputs(
    sources: Sequence[Source], x_N: Rows, *, renormalise: bool, compiled: bool
) -> tuple[list[Source], list[Tensor], list[Mapping[str, Tensor]]]:
    """Every source as it came, then every source that has batch norm with statistics of x_N: the
    source, its ``head_inputs``, and those statistics, which are empty for a source as it came."""
    own: list[Tensor] = []
    moved: list[tuple[Source, Tensor, Mapping[str, Tensor]]] = []
    known_rows: dict[object, Tensor] = {}
    for source in sources:
        network = source.network
        # A source without statistics of its own would be the same teacher twice.
        moves = renormalise and bool(network.moving_norms())
        forward = compiled_forward(network, x_N, known_rows) if compiled else None
        if forward is not None and len(x_N) > 1:
            own.append(forward.features())
            if moves:
                forward.renormalise(_num_batches(x_N))
                moved.append((source, forward.features(), forward.statistics()))
            continue
        own.append(head_inputs(network, features_in_batches(network, x_N)))
        if moves:
            with renormalised(network, x_N) as statistics:
                features_NF = head_inputs(network, features_in_batches(network, x_N))
                moved.append((source, features_NF, statistics))
    return (
        [*sources, *(source for source, _, _ in moved)],
        [*own, *(features_NF for _, features_NF, _ in moved)],
        [*({} for _ in own), *(statistics for _, _, statistics in moved)],
    )


@contextmanager
def renormalised(
    network: Network, x: Rows, *, compiled: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Batch-norm statistics of x inside the block, which gets them by name; the own ones after."""
    own = _statistics(network)
    try:
        renormalise(network, x, compiled=compiled)
        yield _statistics(network)
    finally:
        network.load_state_dict(own, strict=False)


def renormalised_features(
    sources: Sequence[Source], x_N: Rows, parts: Sequence[Rows], *, compiled: bool = False
) -> list[Tensor]:
    """Every source's features (S, ., F) of each part of the rows, with statistics of x_N."""
    features = []
    for source in sources:
        with renormalised(source.network, x_N, compiled=compiled):
            read = features_of_parts(source.network, parts, compiled=compiled)
            features.append([head_inputs(source.network, part_NF) for part_NF in read])
    return [stack_padded(part) for part in zip(*features, strict=True)]


@torch.no_grad()
def head_inputs(network: Network, features_NF: Tensor) -> Tensor:
    """What ``stack_heads`` weighs: features, or the logits of a head that is not linear."""
    return features_NF if isinstance(network.head, nn.Linear) else network.head(features_NF)


def head_width(network: Network) -> int:
    """Columns of ``head_inputs``."""
    return network.num_features if isinstance(network.head, nn.Linear) else network.num_classes


@torch.no_grad()
def stack_heads(sources: Sequence[Source]) -> tuple[Tensor, Tensor]:
    """Every source's head: weights (S, F, C), zero-padded to the widest, and biases (S, C).

    A head that is not linear stands as it is, and the identity of its logits in its place.
    """
    weights, biases = [], []
    for network in (source.network for source in sources):
        num_classes, is_linear = network.num_classes, isinstance(network.head, nn.Linear)
        bias = network.head.bias if is_linear else None
        weights.append(network.head.weight if is_linear else torch.eye(num_classes))
        biases.append(torch.zeros(num_classes) if bias is None else bias)
    return stack_padded(weights).transpose(1, 2).contiguous(), torch.stack(biases)


def stack_padded(rows: Sequence[Tensor]) -> Tensor:
    """Tensors (N, .) of several widths as one (S, N, F), zero-padded to the widest."""
    widest = max(part.shape[1] for part in rows)
    return torch.stack([nn.functional.pad(part, (0, widest - part.shape[1])) for part in rows])


def with_classes(sources: Sequence[Source], mask_C: BoolArray) -> tuple[Source, ...]:
    """The sources as knowing these classes too: their heads are about to learn them."""
    return tuple(replace(source, mask_C=source.mask_C | mask_C) for source in sources)


def _statistics(network: Network) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}
