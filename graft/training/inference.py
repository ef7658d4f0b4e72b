"""Forward passes of a finished network over many rows.

Legend: N rows, B a batch, C classes, F features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from graft.core.records import FloatArray
from graft.core.streams import Rows, concat, in_batches
from graft.models import Network
from graft.training.compiled.build import kernels_built
from graft.training.compiled.calls import CompiledForward
from graft.training.compiled.plan import kernel_plan
from graft.training.outputs import masked_probabilities

# Rows of a compiled forward pass, whose activations then stay in the cache.
_COMPILED_ROWS = 32


def log_probabilities(logits_NC: Tensor, mask_C: Tensor) -> FloatArray:
    """log softmax over the classes that a source knows, at least log 1e-6: none has a veto."""
    log_NC: FloatArray = masked_probabilities(logits_NC, mask_C).clamp_min(1e-6).log().numpy()
    return log_NC


def predict_in_batches(
    network: Network, x: Rows, batch_size: int = 256, *, compiled: bool = False
) -> Tensor:
    """Logits (N, C) of a network, which is left in eval mode; see ``features_in_batches``."""
    with torch.no_grad():
        if compiled:
            logits_NC: Tensor = network.head(features_in_batches(network, x, compiled=True))
            return logits_NC
        network.eval()
        return torch.cat([network(x_B) for x_B in in_batches(x, batch_size)])


@torch.no_grad()
def features_in_batches(
    network: Network, x: Rows, batch_size: int = 256, *, compiled: bool = False
) -> Tensor:
    """Features (N, F) of a network, which is left in eval mode.

    ``compiled``: by the compiled trainer, within float tolerance, where it has a form for the
    network.
    """
    network.eval()
    forward = compiled_forward(network, x) if compiled else None
    if forward is not None:
        return forward.features()
    return torch.cat([network.features(x_B) for x_B in in_batches(x, batch_size)])


def compiled_forward(
    network: Network, x: Rows, known_rows: dict[object, Tensor] | None = None
) -> CompiledForward | None:
    """Forward passes of the compiled trainer over all rows, or None without a form for them.

    ``known_rows`` keeps the rows as first layers read them, for the next network of that layout.
    """
    if not kernels_built() or not isinstance(x, Tensor) or x.dtype != torch.float32:
        return None
    plan = kernel_plan(network, tuple(x.shape[1:]), _COMPILED_ROWS)
    if plan is None:
        return None
    rows = (known_rows or {}).get(plan.layout)
    if rows is None:
        rows = plan.rows(x)
    if known_rows is not None:
        known_rows[plan.layout] = rows
    return CompiledForward(plan, network, rows)


def features_of_parts(
    network: Network, parts: Sequence[Rows], *, compiled: bool = False
) -> list[Tensor]:
    """Features of each of several sets of rows, one or more; see ``features_in_batches``."""
    if not compiled:
        return [features_in_batches(network, x) for x in parts]
    features_NF = features_in_batches(network, concat(list(parts)), compiled=True)
    return list(torch.split(features_NF, [len(x) for x in parts]))
