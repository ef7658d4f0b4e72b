"""Distillation of several sources into the target: plain average, CA-MKD, AE-KD, soft targets.

All but soft targets learn L by cross-entropy beside it:  L = CE(L) + KL(mixture || target).

- average-kd: the mixture is the sources' plain mean on U.
- CA-MKD (ICASSP 2022). Published, for a labelled sample: w_s = (1 - softmax_s CE_s) / (S - 1).
  Ours: where no label is known, the source's own entropy replaces its cross-entropy; sources
  are compared at the output only, because features of unlike encoders have no common space.
- AE-KD (NeurIPS 2020). Published, at every step: min over a of ||sum_s a_s g_s||^2 / 2,
  sum_s a_s = 1, 0 <= a_s <= 0.6, g_s the gradient of the divergence from source s. Ours: g_s is
  taken at the target's logits, where it is p_t - p_s and costs no backward pass.
- soft-kd (published as KA-CFL's baseline, IJCAI 2019): L_soft alone, on all rows, without labels.

Legend: S sources, L labelled, U unlabelled, N samples, B a batch, C classes, D of a gradient.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.config import TrainingConfig
from graft.core.exchange import FusionDiagnostics
from graft.core.streams import Rows, concat
from graft.methods.base import OUTPUTS, Method, each_compiled, selected
from graft.methods.blocks import fusion, targets
from graft.methods.cost import aekd_cost, camkd_cost, soft_targets_cost
from graft.models import Network
from graft.training import (
    Source,
    TrainedModel,
    TrainingTask,
    Units,
    masked_probabilities,
    minimise,
    output_loss,
    parameter_group,
    predict_in_batches,
)

MAX_AEKD_WEIGHT = 0.6
_MAX_EXCHANGES = 20_000  # reached only where there are more sources than numbers in a gradient
_TOLERANCE = 1e-9
_MIN_PROBABILITY = 1e-6  # no source is surer than this that a label is wrong


def fit_average_kd(task: TrainingTask) -> TrainedModel:
    """Distil the plain mean of the sources' predictions on U, beside cross-entropy on L."""
    network = targets.fresh_target(task)
    mean_UC = targets.mean_prediction(
        task.sources, task.x_U, compiled=task.compiled, kind=task.output
    )
    targets.distil(network, mean_UC, task)
    return targets.trained_target(task, network)


def fit_camkd(task: TrainingTask) -> TrainedModel:
    """Distil the confidence-weighted sources on L and U, beside cross-entropy on L.

    The mixture of the sources' divergences has the gradient of one divergence from the mixed
    prediction, which is therefore what is computed.
    """
    predictions_SLC = targets.source_predictions(task.sources, task.x_L)
    predictions_SUC = targets.source_predictions(task.sources, task.x_U)
    weight_SL = confidence_weights(label_cross_entropy(predictions_SLC, task.y_L))
    weight_SU = confidence_weights(prediction_entropy(predictions_SUC))
    soft_targets_LC = torch.einsum("sn,snc->nc", weight_SL, predictions_SLC)
    soft_targets_UC = torch.einsum("sn,snc->nc", weight_SU, predictions_SUC)
    network = targets.fresh_target(task)

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        logits_LC, logits_UC = targets.batch_logits(network, task, labelled_B, unlabelled_B)
        soft_targets_BC = torch.cat([soft_targets_LC[labelled_B], soft_targets_UC[unlabelled_B]])
        supervised = F.cross_entropy(logits_LC, task.y_L[labelled_B])
        return supervised + targets.kd_loss(torch.cat([logits_LC, logits_UC]), soft_targets_BC)

    targets.train_target(network, loss_of, task)
    weights_SN = torch.cat([weight_SL, weight_SU], dim=1)
    return targets.trained_target(
        task, network, diagnostics=FusionDiagnostics(mixture_SQ=fusion.mixture_spread(weights_SN))
    )


def confidence_weights(uncertainty_SN: Tensor) -> Tensor:
    """w_s = (1 - softmax_s uncertainty_s) / (S - 1), (S, N), which sum to 1 over the sources.

    A single source has weight 1.
    """
    num_sources = len(uncertainty_SN)
    if num_sources == 1:
        return torch.ones_like(uncertainty_SN)
    return (1 - torch.softmax(uncertainty_SN, dim=0)) / (num_sources - 1)


def label_cross_entropy(predictions_SNC: Tensor, y_N: Tensor) -> Tensor:
    """Each source's cross-entropy of the true label, (S, N), in nats."""
    index_SN1 = y_N.expand(len(predictions_SNC), -1)[..., None]
    right_SN = predictions_SNC.gather(2, index_SN1)[..., 0]
    return -right_SN.clamp_min(_MIN_PROBABILITY).log()


def prediction_entropy(predictions_SNC: Tensor) -> Tensor:
    """Each source's entropy, (S, N), in nats."""
    entropy_SN: Tensor = torch.special.entr(predictions_SNC).sum(2)
    return entropy_SN


def fit_aekd(task: TrainingTask) -> TrainedModel:
    """Distil the sources on U, mixed anew at every step, beside cross-entropy on L."""
    predictions_SUC = targets.source_predictions(task.sources, task.x_U)
    network = targets.fresh_target(task)

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        logits_LC, logits_UC = targets.batch_logits(network, task, labelled_B, unlabelled_B)
        predictions_SBC = predictions_SUC[:, unlabelled_B]
        gradients_SD = (torch.softmax(logits_UC.detach(), dim=1) - predictions_SBC).flatten(1)
        weight_S = min_norm_weights((gradients_SD @ gradients_SD.T).double().numpy())
        soft_targets_BC = torch.einsum(
            "s,sbc->bc", torch.from_numpy(weight_S).float(), predictions_SBC
        )
        supervised = F.cross_entropy(logits_LC, task.y_L[labelled_B])
        return supervised + targets.kd_loss(logits_UC, soft_targets_BC)

    targets.train_target(network, loss_of, task)
    return targets.trained_target(task, network)


def min_norm_weights(
    products_SS: npt.NDArray[np.float64], largest: float = MAX_AEKD_WEIGHT
) -> npt.NDArray[np.float64]:
    """argmin_a ||sum_s a_s g_s||, sum_s a_s = 1, 0 <= a_s <= largest, from the products g_s . g_t.

    The pair of sources that gains most by it exchanges as much weight as is best, until no pair
    gains. Where the bound leaves no solution (one source), it is 1 / S.
    """
    num_sources = len(products_SS)
    largest = max(largest, 1 / num_sources)
    weight_S = np.full(num_sources, 1 / num_sources)
    tolerance = _TOLERANCE * max(float(np.trace(products_SS)), _TOLERANCE)
    for _ in range(_MAX_EXCHANGES):
        slope_S = products_SS @ weight_S
        giver = int(np.where(weight_S > _TOLERANCE, slope_S, -np.inf).argmax())
        taker = int(np.where(weight_S < largest - _TOLERANCE, slope_S, np.inf).argmin())
        gain = slope_S[giver] - slope_S[taker]
        if gain <= tolerance:
            break
        bend = products_SS[giver, giver] + products_SS[taker, taker] - 2 * products_SS[giver, taker]
        amount = min(gain / max(bend, gain), weight_S[giver], largest - weight_S[taker])
        weight_S[giver] -= amount
        weight_S[taker] += amount
    return weight_S


def fit_soft_targets(task: TrainingTask) -> TrainedModel:
    """Soft-target distillation from the selected sources on all rows; no label is read."""
    student = targets.fresh_target(task)
    x_N = concat([task.x_L, task.x_U])
    if task.output == "classes":
        distil_soft_targets(student, task.sources, x_N, task.config.training, task.seed)
    else:
        _distil_means(student, x_N, task)
    mask_C = np.any([source.mask_C for source in task.sources], axis=0)
    return targets.trained_target(task, student, mask_C)


def _distil_means(student: Network, x_N: Rows, task: TrainingTask) -> None:
    """Train the student on the teachers' mean labels or amounts of all rows, alone."""
    mean_NC = targets.mean_prediction(task.sources, x_N, kind=task.output)
    with Units.of(mean_NC, task.output).within(student) as units:
        target_NC = units.own(mean_NC)

        def loss_of(rows_B: Tensor, _: Tensor) -> Tensor:
            return output_loss(student(x_N[rows_B]), target_NC[rows_B], task.output)

        training = task.config.training
        groups = [parameter_group(student.train(), training.learning_rate)]
        minimise(loss_of, groups, len(x_N), 0, training, task.seed)


def distil_soft_targets(
    student: Network, teachers: Sequence[Source], x_N: Rows, training: TrainingConfig, seed: int
) -> None:
    """Train the student on L_soft alone. Raises TransportError without teachers."""
    target_NC = teachers_soft_targets(teachers, x_N)
    student.train()

    def loss_of(rows_B: Tensor, _: Tensor) -> Tensor:
        return soft_cross_entropy(student(x_N[rows_B]), target_NC[rows_B])

    groups = [parameter_group(student, training.learning_rate)]
    minimise(loss_of, groups, len(x_N), 0, training, seed)
    student.eval()


def teachers_soft_targets(teachers: Sequence[Source], x_N: Rows) -> Tensor:
    """``soft_targets`` of the teachers' logits. Raises TransportError without teachers."""
    targets.require_sources(teachers)
    logits_SNC = torch.stack([predict_in_batches(t.network, x_N) for t in teachers])
    return soft_targets(logits_SNC, torch.from_numpy(np.stack([t.mask_C for t in teachers])))


def soft_targets(logits_SNC: Tensor, mask_SC: Tensor) -> Tensor:
    """The teachers' joint prediction, (N, C): distributions over the classes that any knows.

    Disjoint label spaces (published): softmax of the teachers' concatenated logits. Spaces that
    overlap (ours): each class's mean over the teachers that know it, scaled to sum to 1.
    """
    teachers_C = mask_SC.sum(0)
    if (teachers_C <= 1).all():
        joined_NC = logits_SNC.masked_fill(~mask_SC[:, None], 0).sum(0)
        return masked_probabilities(joined_NC, teachers_C > 0)
    mean_NC = masked_probabilities(logits_SNC, mask_SC[:, None]).sum(0) / teachers_C.clamp_min(1)
    return mean_NC / mean_NC.sum(1, keepdim=True)


def soft_cross_entropy(logits_BC: Tensor, target_BC: Tensor) -> Tensor:
    """L_soft: the batch mean of -sum_c target_c log softmax(logits)_c."""
    return -(target_BC * F.log_softmax(logits_BC, dim=1)).sum(1).mean()


METHODS = (
    selected(
        name="average-kd-selected",
        title="Averaged, selected",
        fit=fit_average_kd,
        fit_many=each_compiled(fit_average_kd),
        trains_privately=True,
        outputs=OUTPUTS,
    ),
    Method(
        name="average-kd-all",
        title="Ship-all (averaged)",
        fit=fit_average_kd,
        fit_many=each_compiled(fit_average_kd),
        sources_needed="all",
        trains_privately=True,
        outputs=OUTPUTS,
    ),
    selected(name="camkd", title="CA-MKD-style", fit=fit_camkd, cost=camkd_cost),
    selected(name="aekd", title="AE-KD-style", fit=fit_aekd, cost=aekd_cost),
    selected(
        name="soft-kd",
        title="Soft targets",
        fit=fit_soft_targets,
        cost=soft_targets_cost,
        outputs=OUTPUTS,
    ),
)
