"""CA-MKD: a teacher counts as much as it is sure of the true label (ICASSP 2022).

Published, for a labelled sample: w_s = (1 - softmax_s CE_s) / (S - 1). Ours: where no label is
known, the teacher's own entropy stands for its cross-entropy; and teachers are compared at the
output only, because features of unlike encoders have no common space.

Legend: S sources, N samples, L labelled, U unlabelled samples, B a batch, C classes.
"""

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.records import FusionDiagnostics
from graft.methods.base import Method
from graft.methods.blocks.diagnostics import mixture_spread
from graft.methods.blocks.targets import (
    batch_logits,
    fresh_target,
    kd_loss,
    known_classes,
    source_predictions,
    train_target,
)
from graft.methods.cost import camkd_cost
from graft.training import TrainedModel, TrainingTask

_SMALLEST = 1e-6  # a source is never surer than this that a label is wrong


def confidence_mixture(doubt_SN: Tensor) -> Tensor:
    """w_s = (1 - softmax_s doubt_s) / (S - 1), (S, N): shares that sum to 1 over the sources.

    An only source has the share 1.
    """
    num_sources = len(doubt_SN)
    if num_sources == 1:
        return torch.ones_like(doubt_SN)
    return (1 - torch.softmax(doubt_SN, dim=0)) / (num_sources - 1)


def label_doubt(predictions_SNC: Tensor, y_N: Tensor) -> Tensor:
    """Each source's cross-entropy of the true label, (S, N)."""
    index_SN1 = y_N.expand(len(predictions_SNC), -1)[..., None]
    right_SN = predictions_SNC.gather(2, index_SN1)[..., 0]
    return -right_SN.clamp_min(_SMALLEST).log()


def own_doubt(predictions_SNC: Tensor) -> Tensor:
    """Each source's entropy, (S, N), in nats."""
    entropy_SN: Tensor = torch.special.entr(predictions_SNC).sum(2)
    return entropy_SN


def fit_camkd(task: TrainingTask) -> TrainedModel:
    """Distil the confidence-mixed sources on L and U, beside cross-entropy on L.

    The mixture of the sources' divergences has the gradient of one divergence from the mixed
    prediction, which is therefore what is computed.
    """
    predictions_SLC = source_predictions(task.sources, task.x_L)
    predictions_SUC = source_predictions(task.sources, task.x_U)
    weight_SL = confidence_mixture(label_doubt(predictions_SLC, task.y_L))
    weight_SU = confidence_mixture(own_doubt(predictions_SUC))
    soft_targets_LC = torch.einsum("sn,snc->nc", weight_SL, predictions_SLC)
    soft_targets_UC = torch.einsum("sn,snc->nc", weight_SU, predictions_SUC)
    network = fresh_target(task)

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        logits_LC, logits_UC = batch_logits(network, task, labelled_B, unlabelled_B)
        soft_targets_BC = torch.cat([soft_targets_LC[labelled_B], soft_targets_UC[unlabelled_B]])
        supervised = F.cross_entropy(logits_LC, task.y_L[labelled_B])
        return supervised + kd_loss(torch.cat([logits_LC, logits_UC]), soft_targets_BC)

    train_target(network, loss_of, task)
    return TrainedModel(
        architecture=task.architecture,
        network=network.eval(),
        mask_C=known_classes(task),
        used=task.sources,
        diagnostics=FusionDiagnostics(
            mixture_SQ=mixture_spread(torch.cat([weight_SL, weight_SU], dim=1))
        ),
    )


METHODS = (
    Method(
        name="camkd",
        title="CA-MKD-style",
        fit=fit_camkd,
        sources_needed="selected",
        cost=camkd_cost,
    ),
)
