"""What a source gets to know of the new domain before it teaches there (A6, ours)."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from graft.core.records import BoolArray
from graft.training import Source

_BATCH_SIZE = 128


def adapt_source(source: Source, x: Tensor, label_mask: BoolArray) -> Source:
    """The source with batch-norm statistics of the new domain's own samples x.

    No weight of its encoder changes and no label is read for it. The source counts as knowing
    the classes of L too (``label_mask``): its head is about to learn them there.
    """
    network = copy.deepcopy(source.network)
    renormalise(network, x)
    return replace(source, network=network, mask_C=source.mask_C | label_mask)


@torch.no_grad()
def renormalise(network: nn.Module, x: Tensor) -> None:
    """Re-estimate every batch-norm mean and variance from x, then return to eval mode.

    Batches are strided through x, which is in time order, so that each is a fair sample.
    """
    network.eval()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    if len(x) < 2:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for a plain average over batches
        norm.train()
    num_batches = max(1, len(x) // _BATCH_SIZE)
    for first in range(num_batches):
        network(x[first::num_batches])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
