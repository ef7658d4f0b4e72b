"""How accurate a new head on a source's features would be: leave-one-out on the labelled rows.

Legend: L labelled samples, F features, C classes present.
"""

import numpy as np
import numpy.typing as npt

from graft.selection.scores.inputs import checked_labels, checked_rows

# Of the features' mean squared length; from 0.1 to 1 the ranking of sources hardly moves.
_RIDGE = 0.3


def linear_probe_score(features_LF: npt.ArrayLike, y_L: npt.ArrayLike) -> float:
    """Leave-one-out accuracy on L of a ridge classifier of one-hot labels (ours).

    Closed form (Allen's PRESS): with H = K (K + r I)^-1, row i is predicted without itself as
    (H Y - h_ii Y)_i / (1 - h_ii). K is linear in the centred features, scaled to mean squared
    length 1, plus 1 for the intercept. Higher is better, a share of the rows; 1 where L holds
    one class. Raises DomainShapeError, DomainEmptyError or DomainValueError.
    """
    features = checked_rows(features_LF)
    place_L, counts_C = checked_labels(y_L, len(features))
    spread = features - features.mean(0)
    kernel_LL = spread @ spread.T
    kernel_LL /= np.trace(kernel_LL) / len(features) or 1.0
    kernel_LL += 1
    target_LC = np.eye(len(counts_C))[place_L]
    ridge_LL = kernel_LL + _RIDGE * np.eye(len(features))
    hat_LL = np.linalg.solve(ridge_LL, kernel_LL)
    own_L1 = np.diag(hat_LL)[:, None]
    predicted_LC = (hat_LL @ target_LC - own_L1 * target_LC) / (1 - own_L1)
    return float((predicted_LC.argmax(1) == place_L).mean())
