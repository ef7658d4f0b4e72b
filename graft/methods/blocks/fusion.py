"""How predictions of several sources become one: weight caps, propagation, sharpening.

Propagation is published (Zhou et al., NeurIPS 2004); the rest is ours.

Legend: N samples, S sources, T teachers, F features, C classes, Q statistics of a weight.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from scipy.sparse import csr_matrix, diags
from torch import Tensor

from graft.core.records import FloatArray
from graft.training import Source

_SIMILARITY_WIDTH = 0.1
_ROWS_AT_ONCE = 1024
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MAX_EPOCHS = 25


def cap_weights(weight_S: Tensor, cap: float) -> Tensor:
    """Weights (..., S) that sum to 1 with none above ``cap`` (ours): bounds what one liar can do.

    What is cut goes to the others in proportion. A cap below 1/S counts as 1/S; weights within
    the cap are returned unchanged.
    """
    cap = max(cap, 1 / weight_S.shape[-1])
    full_S = torch.zeros_like(weight_S, dtype=torch.bool)
    for _ in range(weight_S.shape[-1]):
        above_S = (weight_S > cap) & ~full_S
        if not bool(above_S.any()):
            break
        full_S = full_S | above_S
        left = 1 - cap * full_S.sum(-1, keepdim=True)
        open_S = weight_S.masked_fill(full_S, 0)
        # Where the others have weight 0, they share the rest evenly.
        open_S = torch.where(open_S.sum(-1, keepdim=True) > 0, open_S, (~full_S).to(weight_S.dtype))
        scale = left / open_S.sum(-1, keepdim=True).clamp_min(1e-12)
        capped_S = torch.where(full_S, torch.full_like(weight_S, cap), open_S * scale)
        weight_S = torch.where(full_S.any(-1, keepdim=True), capped_S, weight_S)
    return weight_S


def cap_teachers(weight_T: Tensor, source_T: Sequence[str], cap: float) -> Tensor:
    """Weights (T,) of teachers, several of one source, with each source's sum capped."""
    names = sorted(set(source_T))
    index_T = torch.tensor([names.index(name) for name in source_T])
    weight_S = torch.zeros(len(names)).index_add(0, index_T, weight_T)
    scale_S = cap_weights(weight_S, cap) / weight_S.clamp_min(1e-12)
    return weight_T * scale_S[index_T]


def propagate(predictions_NC: Tensor, graph: csr_matrix, alpha: float, steps: int = 30) -> Tensor:
    """Z <- alpha A Z + (1 - alpha) P, from Z = P (Zhou et al.); rows of the result sum to 1.

    A is the normalised graph of ``neighbour_graph``. ``alpha`` is 0 (no propagation) to 1
    (exclusive).
    """
    spread_NC = spread(predictions_NC, graph, alpha, steps)
    return spread_NC / spread_NC.sum(1, keepdim=True)


def spread(predictions_NC: Tensor, graph: csr_matrix, alpha: float, steps: int = 30) -> Tensor:
    """What ``propagate`` divides by the sums of its rows."""
    start_NC = predictions_NC.numpy()
    spread_NC = start_NC
    for _ in range(steps):
        spread_NC = alpha * (graph @ spread_NC) + (1 - alpha) * start_NC
    return torch.from_numpy(spread_NC)


def joint_features(features_SNF: Tensor) -> Tensor:
    """One unit vector a sample (N, S F): every source's standardised features side by side, each
    source's part of equal length, so that a wide source does not outvote a narrow one."""
    centred_SNF = features_SNF - features_SNF.mean(1, keepdim=True)
    # Constant features and the padding of narrow sources stay zero.
    scaled_SNF = centred_SNF / (features_SNF.std(1, keepdim=True) + 1e-3)
    unit_SNF = F.normalize(scaled_SNF, dim=2)
    return F.normalize(unit_SNF.transpose(0, 1).flatten(1), dim=1)


def neighbour_graph(unit_NF: Tensor, num_neighbours: int) -> csr_matrix:
    """D^-1/2 A D^-1/2 of the symmetric graph, weights exp((cosine - 1) / 0.1), no self-loops."""
    num_rows = len(unit_NF)
    num_nearest = min(num_neighbours, num_rows - 1)
    weights, columns = [], []
    # In blocks: the whole matrix of cosines would be N x N.
    for first in range(0, num_rows, _ROWS_AT_ONCE):
        cosine_BN = unit_NF[first : first + _ROWS_AT_ONCE] @ unit_NF.T
        rows_B = torch.arange(len(cosine_BN))
        cosine_BN[rows_B, first + rows_B] = -2.0
        nearest = cosine_BN.topk(num_nearest, dim=1)
        weights.append(torch.exp((nearest.values - 1) / _SIMILARITY_WIDTH))
        columns.append(nearest.indices)
    row_of = np.repeat(np.arange(num_rows), num_nearest)
    shape = (num_rows, num_rows)
    entries = torch.cat(weights).flatten().numpy(), (row_of, torch.cat(columns).flatten().numpy())
    graph = csr_matrix(entries, shape=shape)
    graph = graph.maximum(graph.T)
    degree_N = np.asarray(graph.sum(1)).ravel()
    scale = diags(1 / np.sqrt(np.maximum(degree_N, 1e-9)).astype(np.float32))
    return (scale @ graph @ scale).tocsr()


def sharpened(predictions_NC: Tensor, temperature: float) -> Tensor:
    """p^(1/T), renormalised; rows of zeros stay zero."""
    powered_NC = predictions_NC ** (1 / temperature)
    return powered_NC / powered_NC.sum(1, keepdim=True).clamp_min(1e-12)


def mixture_spread(weight_SN: Tensor) -> FloatArray:
    """The mean and the 5, 25, 50, 75 and 95 % quantiles of each source's weights, (S, 6)."""
    weight_SN = weight_SN.detach().double()
    quantile_QS = torch.quantile(weight_SN, torch.tensor(_QUANTILES, dtype=torch.double), dim=1)
    figures_SQ = torch.cat([weight_SN.mean(1, keepdim=True), quantile_QS.T], dim=1)
    # A sum of weights may exceed 1 by a rounding.
    spread_SQ: FloatArray = figures_SQ.clamp(0, 1).float().numpy()
    return spread_SQ


def teacher_spread(
    weight_T: Tensor, teachers: Sequence[Source], sources: Sequence[Source]
) -> FloatArray:
    """``mixture_spread`` of weights that are the same on every sample: a source's is the sum of
    those of its one or two teachers."""
    at = {(s.model_id, s.domain_id): index for index, s in enumerate(sources)}
    source_T = torch.tensor([at[s.model_id, s.domain_id] for s in teachers])
    weight_S = torch.zeros(len(sources)).index_add(0, source_T, weight_T)
    return mixture_spread(weight_S[:, None])


def thinned_epochs(rows: Sequence[Sequence[float]]) -> FloatArray:
    """At most 25 of the rows, evenly taken, with the first and the last of them."""
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), _MAX_EPOCHS)).round().astype(int)
    thinned: FloatArray = np.array(rows, dtype=np.float32)[chosen]
    return thinned
