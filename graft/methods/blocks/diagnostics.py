"""What a fusion tells of itself, small enough for a report: no sample of its own is in it.

Legend: N samples, S sources, Q figures of a weight, E epochs.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from graft.core.records import FloatArray

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MAX_EPOCHS = 25


def mixture_spread(weight_SN: Tensor) -> FloatArray:
    """The mean and the 5, 25, 50, 75 and 95 % quantiles of each source's weights, (S, 6)."""
    weight_SN = weight_SN.detach().double()
    quantile_QS = torch.quantile(weight_SN, torch.tensor(_QUANTILES, dtype=torch.double), dim=1)
    figures_SQ = torch.cat([weight_SN.mean(1, keepdim=True), quantile_QS.T], dim=1)
    # A sum of shares may pass 1 by a rounding.
    spread_SQ: FloatArray = figures_SQ.clamp(0, 1).float().numpy()
    return spread_SQ


def thinned_epochs(rows: Sequence[Sequence[float]]) -> FloatArray:
    """At most 25 of the rows, evenly taken, with the first and the last of them."""
    kept = np.linspace(0, len(rows) - 1, min(len(rows), _MAX_EPOCHS)).round().astype(int)
    return np.array([rows[place] for place in kept], dtype=np.float32)
