"""Predictions that spread over a graph of alike samples (Zhou et al., NeurIPS 2004).

Legend: N samples, S sources, F features, C classes, K neighbours.
"""

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags
from torch import Tensor

_SIMILARITY_WIDTH = 0.1
_ROWS_AT_ONCE = 1024


def propagate(predictions_NC: Tensor, graph: csr_matrix, share: float, steps: int = 30) -> Tensor:
    """Z <- share A Z + (1 - share) P, from Z = P; rows of the result sum to 1.

    A is the normalised graph of ``neighbour_graph``. ``share`` is 0 (nothing spreads) to 1
    (exclusive).
    """
    start_NC = predictions_NC.numpy()
    spread_NC = start_NC
    for _ in range(steps):
        spread_NC = share * (graph @ spread_NC) + (1 - share) * start_NC
    spread = torch.from_numpy(spread_NC)
    return spread / spread.sum(1, keepdim=True)


def joint_features(features_SNF: Tensor) -> Tensor:
    """One unit vector a sample (N, S F): every source's standardised features side by side, each
    source's share of equal length, so that a wide source does not outvote a narrow one."""
    centred_SNF = features_SNF - features_SNF.mean(1, keepdim=True)
    # Constant features and the padding of narrow sources stay zero.
    scaled_SNF = centred_SNF / (features_SNF.std(1, keepdim=True) + 1e-3)
    unit_SNF = torch.nn.functional.normalize(scaled_SNF, dim=2)
    return torch.nn.functional.normalize(unit_SNF.transpose(0, 1).flatten(1), dim=1)


def neighbour_graph(unit_NF: Tensor, num_neighbours: int) -> csr_matrix:
    """D^-1/2 A D^-1/2 of the symmetric graph, weights exp((cosine - 1) / 0.1), no self-loops."""
    num_rows = len(unit_NF)
    kept = min(num_neighbours, num_rows - 1)
    weights, columns = [], []
    for first in range(0, num_rows, _ROWS_AT_ONCE):
        cosine_BN = unit_NF[first : first + _ROWS_AT_ONCE] @ unit_NF.T
        rows_B = torch.arange(len(cosine_BN))
        cosine_BN[rows_B, first + rows_B] = -2.0
        nearest = cosine_BN.topk(kept, dim=1)
        weights.append(torch.exp((nearest.values - 1) / _SIMILARITY_WIDTH))
        columns.append(nearest.indices)
    row_of = np.repeat(np.arange(num_rows), kept)
    shape = (num_rows, num_rows)
    entries = torch.cat(weights).flatten().numpy(), (row_of, torch.cat(columns).flatten().numpy())
    graph = csr_matrix(entries, shape=shape)
    graph = graph.maximum(graph.T)
    degree_N = np.asarray(graph.sum(1)).ravel()
    scale = diags(1 / np.sqrt(np.maximum(degree_N, 1e-9)).astype(np.float32))
    return (scale @ graph @ scale).tocsr()
