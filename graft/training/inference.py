"""Forward passes of a finished network over many rows.

Legend: N rows, B a batch, C classes, F features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from graft.core.records import FloatArray
from graft.models import Network
from graft.training.compiled.build import load_kernels
from graft.training.compiled.plan import compiled_features, kernel_plan

# Rows of a compiled forward pass, whose activations then stay in the cache.
_COMPILED_ROWS = 32


def masked_probabilities(logits_BC: Tensor, mask_C: Tensor) -> Tensor:
    """softmax over the classes that a source knows; zero for the others."""
    return torch.softmax(logits_BC.masked_fill(~mask_C, float("-inf")), dim=-1)


def log_probabilities(logits_NC: Tensor, mask_C: Tensor) -> FloatArray:
    """log softmax over the classes that a source knows, at least log 1e-6: none has a veto."""
    log_NC: FloatArray = masked_probabilities(logits_NC, mask_C).clamp_min(1e-6).log().numpy()
    return log_NC


@torch.no_grad()
def predict_in_batches(network: Network, x: Tensor, batch_size: int = 256) -> Tensor:
    """Logits (N, C) of a network, which is left in eval mode."""
    network.eval()
    return torch.cat([network(x_B) for x_B in torch.split(x, batch_size)])


@torch.no_grad()
def features_in_batches(network: Network, x: Tensor, batch_size: int = 256) -> Tensor:
    """Features (N, F) of a network, which is left in eval mode."""
    network.eval()
    return torch.cat([network.features(x_B) for x_B in torch.split(x, batch_size)])


def features_of_parts(network: Network, parts: Sequence[Tensor]) -> list[Tensor]:
    """Features of each of several sets of rows, one or more."""
    return [features_in_batches(network, x) for x in parts]


def compiled_features_of_parts(network: Network, parts: Sequence[Tensor]) -> list[Tensor]:
    """What ``features_of_parts`` gives, up to float tolerance, compiled where it can be."""
    plan = None
    if load_kernels() is not None and all(x.dtype == torch.float32 for x in parts):
        plan = kernel_plan(network, tuple(parts[0].shape[1:]), _COMPILED_ROWS)
    if plan is None:
        return features_of_parts(network, parts)
    features_NF = compiled_features(plan, network, torch.cat(list(parts)))
    return list(torch.split(features_NF, [len(x) for x in parts]))
