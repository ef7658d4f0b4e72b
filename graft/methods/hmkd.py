"""Mutual distillation between two networks of unlike structure (HMKD, TNNLS 36(9), 2025).

Teacher and student learn at once, each from the labels, from the other's outputs and from the
other's intermediate features, which a weighted ensemble makes comparable. That much is
published; the equations are ours, in the form of the same authors' code:

    u_k = LayerNorm(Linear(pool(v_k))),  F = sum_k softmax(omega)_k u_k
    L_feat(S) = ||F_S - sg F_T||^2 / 128,  L_out(S) = KL(sg p_T || p_S), and their mirrors
    L_net = (1 - r) CE + r (L_out + L_feat),  r = 0.1

Neither L_out nor L_feat reads a label. A target domain (ours) exchanges on L and U, and r is 0.9
there: a dozen labels teach less than the source does.

Legend: L labelled, U unlabelled, N all rows, B a batch, C classes, K taps, W width of the
ensemble feature.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.core.config import TrainingConfig
from graft.core.streams import Rows, concat, in_batches
from graft.methods.base import selected
from graft.methods.blocks import targets
from graft.methods.blocks.stages import over_positions, read_stages
from graft.methods.cost import mutual_cost
from graft.models import Network
from graft.training import TrainedModel, TrainingTask, minimise, parameter_group

_BATCH_SIZE = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class MutualConfig:
    """``exchange`` is r, 0 to 1. A frozen teacher learns nothing from the student."""

    exchange: float = 0.1
    width: int = 128
    freeze_teacher: bool = False


# The r of a target domain, found on development rows. The published r of 0.1 leaves nine tenths to
# the few labels.
TARGET_EXCHANGE = 0.9
# The optimiser's settings of the paper; epochs and their bound are the caller's.
PUBLISHED_TRAINING = TrainingConfig(batch_size=64, learning_rate=1e-4, weight_decay=5e-4)


class View(NamedTuple):
    """One network's output on a batch that the other learns from: logits and ensemble feature F."""

    logits_BC: Tensor
    feature_BW: Tensor

    def rows(self, rows_B: Tensor) -> "View":
        """The view of some of its rows."""
        return View(self.logits_BC[rows_B], self.feature_BW[rows_B])


class EnsembleFeature(nn.Module):
    """F = sum_k softmax(omega)_k LayerNorm(Linear(v_k)) of pooled taps v_k, omega learnt from 0.

    The normalisation has no scale or shift of its own: with them, two networks could agree by
    shrinking F to nothing.
    """

    def __init__(self, tap_widths: Sequence[int], width: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.projections = nn.ModuleList(nn.Linear(inputs, width) for inputs in tap_widths)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.omega_K = nn.Parameter(torch.zeros(len(tap_widths)))

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """Pooled taps, each (B, its channels), to (B, W)."""
        projected_KBW = torch.stack(
            [
                self.norm(projection(tap))
                for projection, tap in zip(self.projections, taps, strict=True)
            ]
        )
        return torch.einsum("k,kbw->bw", torch.softmax(self.omega_K, dim=0), projected_KBW)


class Learner(nn.Module):
    """A network of the zoo with the ensemble feature of its stages beside it."""

    def __init__(self, network: Network, architecture: str, x: Rows, width: int, seed: int) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture
        taps, _ = tap_stages(copy.deepcopy(network).eval(), architecture, x[:1])
        self.ensemble = EnsembleFeature([tap.shape[1] for tap in taps], width, seed)

    def forward(self, x: Rows) -> View:
        taps, logits_BC = tap_stages(self.network, self.architecture, x)
        return View(logits_BC=logits_BC, feature_BW=self.ensemble(taps))

    @torch.no_grad()
    def frozen_view(self, x: Rows) -> View:
        """The view of all rows in eval mode, without a gradient."""
        self.eval()
        views = [self(x_B) for x_B in in_batches(x, _BATCH_SIZE)]
        return View(
            logits_BC=torch.cat([view.logits_BC for view in views]),
            feature_BW=torch.cat([view.feature_BW for view in views]),
        )


def tap_stages(network: Network, architecture: str, x: Rows) -> tuple[list[Tensor], Tensor]:
    """The output of each stage, pooled over its positions (B, channels), and the logits."""
    stages, logits_BC = read_stages(network, architecture, x)
    return [over_positions(stage) for stage in stages], logits_BC


def output_loss(own_BC: Tensor, other_BC: Tensor) -> Tensor:
    """L_out = KL(sg p_other || p_own) of two networks' logits, batch mean."""
    return F.kl_div(
        F.log_softmax(own_BC, dim=1),
        F.log_softmax(other_BC.detach(), dim=1),
        reduction="batchmean",
        log_target=True,
    )


def feature_loss(own_BW: Tensor, other_BW: Tensor) -> Tensor:
    """L_feat = ||F_own - sg F_other||^2 / W, batch mean."""
    return F.mse_loss(own_BW, other_BW.detach())


def network_loss(own: View, other: View, y_B: Tensor, exchange: float) -> Tensor:
    """L_net of one of the two networks; no gradient reaches the other.

    ``y_B`` are the labels of the first rows; the others have none and are exchanged on alone.
    """
    exchanged = output_loss(own.logits_BC, other.logits_BC) + feature_loss(
        own.feature_BW, other.feature_BW
    )
    return (1 - exchange) * F.cross_entropy(own.logits_BC[: len(y_B)], y_B) + exchange * exchanged


def learn_mutually(
    student: Learner,
    teacher: Learner,
    x_L: Rows,
    y_L: Tensor,
    training: TrainingConfig,
    seed: int,
    config: MutualConfig,
    x_U: "Rows | None" = None,
) -> None:
    """Train both learners side by side and leave them in eval mode as the last step made them.

    A frozen teacher is read once, in eval mode; its ensemble stays a random projection.
    Rows without labels, ``x_U``, come as a batch beside each labelled one.
    """
    x_N = x_L if x_U is None else concat([x_L, x_U])
    fixed = teacher.frozen_view(x_N) if config.freeze_teacher else None
    learners = (student,) if fixed is not None else (student, teacher)
    for learner in learners:
        learner.train()

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        rows_B, y_B = torch.cat([labelled_B, unlabelled_B + len(y_L)]), y_L[labelled_B]
        own = student(x_N[rows_B])
        if fixed is not None:
            return network_loss(own, fixed.rows(rows_B), y_B, config.exchange)
        other = teacher(x_N[rows_B])
        # The stops make the sum two separate descents.
        return network_loss(own, other, y_B, config.exchange) + network_loss(
            other, own, y_B, config.exchange
        )

    groups = [parameter_group(learner, training.learning_rate) for learner in learners]
    minimise(loss_of, groups, len(y_L), len(x_N) - len(y_L), training, seed)
    for learner in learners:
        learner.eval()


def fit_hmkd(task: TrainingTask) -> TrainedModel:
    """The source that is best on L and a fresh target learn mutually on L and U.

    Rates, batch and number of steps are the training task's, as for every other method (ours).
    """
    best = targets.best_source(task)
    config = MutualConfig(exchange=TARGET_EXCHANGE)
    teacher = Learner(
        copy.deepcopy(best.network), best.architecture, task.x_L, config.width, task.seed
    )
    fresh = targets.fresh_target(task)
    student = Learner(fresh, task.architecture, task.x_L, config.width, task.seed + 1)
    training = task.config.training
    learn_mutually(student, teacher, task.x_L, task.y_L, training, task.seed, config, task.x_U)
    known_C = best.mask_C | task.label_mask
    return targets.trained_target(task, student.network, known_C, used=(best,))


METHODS = (selected(name="hmkd", title="HMKD-style", fit=fit_hmkd, cost=mutual_cost),)
