"""AE-KD: teachers are mixed so that no one's gradient is worked against (NeurIPS 2020).

Published, at every step: min over a of ||sum_s a_s g_s||^2 / 2, sum_s a_s = 1, 0 <= a_s <= 0.6,
where g_s is the gradient of the divergence from teacher s. Ours: g_s is taken at the student's
logits, where it is p_t - p_s and costs no backward pass.

Legend: S sources, U unlabelled samples, B a batch, C classes.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.methods.base import Method
from graft.methods.blocks.targets import (
    batch_logits,
    fresh_target,
    kd_loss,
    known_classes,
    source_predictions,
    train_target,
)
from graft.methods.cost import aekd_cost
from graft.training import TrainedModel, TrainingTask

LARGEST_SHARE = 0.6
_MAX_EXCHANGES = 2_000
_TOLERANCE = 1e-9


def min_norm_mixture(
    products_SS: npt.NDArray[np.float64], largest: float = LARGEST_SHARE
) -> npt.NDArray[np.float64]:
    """argmin_a ||sum_s a_s g_s||, sum_s a_s = 1, 0 <= a_s <= largest, from the products g_s . g_t.

    The pair of sources that gains most by it exchanges as much share as is best, until no pair
    gains. Where the bound leaves no solution (one source), it is 1 / S.
    """
    num_sources = len(products_SS)
    largest = max(largest, 1 / num_sources)
    share_S = np.full(num_sources, 1 / num_sources)
    tolerance = _TOLERANCE * max(float(np.trace(products_SS)), _TOLERANCE)
    for _ in range(_MAX_EXCHANGES):
        slope_S = products_SS @ share_S
        giver = int(np.where(share_S > _TOLERANCE, slope_S, -np.inf).argmax())
        taker = int(np.where(share_S < largest - _TOLERANCE, slope_S, np.inf).argmin())
        gain = slope_S[giver] - slope_S[taker]
        if gain <= tolerance:
            break
        bend = products_SS[giver, giver] + products_SS[taker, taker] - 2 * products_SS[giver, taker]
        amount = min(gain / max(bend, gain), share_S[giver], largest - share_S[taker])
        share_S[giver] -= amount
        share_S[taker] += amount
    return share_S


def fit_aekd(task: TrainingTask) -> TrainedModel:
    """Distil the sources on U, mixed anew at every step, beside cross-entropy on L."""
    predictions_SUC = source_predictions(task.sources, task.x_U)
    network = fresh_target(task)

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        logits_LC, logits_UC = batch_logits(network, task, labelled_B, unlabelled_B)
        predictions_SBC = predictions_SUC[:, unlabelled_B]
        gradients_SD = (torch.softmax(logits_UC.detach(), dim=1) - predictions_SBC).flatten(1)
        share_S = min_norm_mixture((gradients_SD @ gradients_SD.T).double().numpy())
        soft_targets_BC = torch.einsum(
            "s,sbc->bc", torch.from_numpy(share_S).float(), predictions_SBC
        )
        supervised = F.cross_entropy(logits_LC, task.y_L[labelled_B])
        return supervised + kd_loss(logits_UC, soft_targets_BC)

    train_target(network, loss_of, task)
    return TrainedModel(
        architecture=task.architecture,
        network=network.eval(),
        mask_C=known_classes(task),
        used=task.sources,
    )


METHODS = (
    Method(
        name="aekd", title="AE-KD-style", fit=fit_aekd, sources_needed="selected", cost=aekd_cost
    ),
)
