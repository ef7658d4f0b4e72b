"""DECISION with labels: all sources adapt together, each by a learnt weight (CVPR 2021).

Published: p(x) = sum_s a_s h_s(f_s(x)) with learnt weights a_s that sum to 1, heads h_s fixed;
L = information loss of p + 0.3 CE of pseudo-labels, which come from the sources' class
centroids, weighted by a_s. Ours: of each encoder only a linear map behind its features learns
(the features are computed once, with batch-norm statistics of the new domain); cross-entropy
on L is added; and the target learns from p as it grows, because a device can keep one model.

Legend: S sources, L labelled, U unlabelled samples, B a batch, C classes, F features.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.core.records import FusionDiagnostics
from graft.methods.base import Method
from graft.methods.blocks.adaptation import renormalised_features, stack_heads
from graft.methods.blocks.fusion import mixture_spread
from graft.methods.blocks.targets import (
    batch_logits,
    fresh_target,
    kd_loss,
    require_sources,
    trained_target,
)
from graft.methods.cost import moved_sources_cost
from graft.methods.shot import PSEUDO_LABEL_WEIGHT, cluster_labels, information_loss
from graft.training import (
    Source,
    TrainedModel,
    TrainingTask,
    masked_probabilities,
    minimise,
    parameter_group,
)

_SMALLEST = 1e-6


class MovedSources(nn.Module):
    """p(x) = sum_s a_s m_s softmax(h_s(A_s f_s(x) + b_s)): A_s, b_s and a_s learn, h_s does not.

    A_s starts as the identity, all a_s as 1 / S: at first p is the sources' plain mean.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        super().__init__()
        self.head_SFC, bias_SC = stack_heads(sources)
        self.bias_S1C = bias_SC[:, None]
        num_sources, widest, _ = self.head_SFC.shape
        self.map_SFF = nn.Parameter(torch.eye(widest).repeat(num_sources, 1, 1))
        self.shift_S1F = nn.Parameter(torch.zeros(num_sources, 1, widest))
        self.mixture_logits_S = nn.Parameter(torch.zeros(num_sources))
        self.mask_S1C = torch.from_numpy(np.stack([s.mask_C for s in sources]))[:, None]

    @property
    def mixture_S(self) -> Tensor:  # noqa: N802 - a shape suffix
        """a_s: weights that sum to 1."""
        return torch.softmax(self.mixture_logits_S, dim=0)

    def moved(self, features_SBF: Tensor) -> Tensor:
        """A_s f_s(x) + b_s, (S, B, F)."""
        return features_SBF @ self.map_SFF + self.shift_S1F

    def predictions(self, moved_SBF: Tensor) -> Tensor:
        """Each source's probabilities over the classes it knows, (S, B, C)."""
        return masked_probabilities(moved_SBF @ self.head_SFC + self.bias_S1C, self.mask_S1C)

    def forward(self, features_SBF: Tensor) -> Tensor:
        """p(x), (B, C)."""
        predictions_SBC = self.predictions(self.moved(features_SBF))
        return torch.einsum("s,sbc->bc", self.mixture_S, predictions_SBC)


def fit_decision(task: TrainingTask) -> TrainedModel:
    """Adapt the mixture of sources on L and U, and distil it into the target on U."""
    require_sources(task.sources)
    training = task.config.training
    x_N = torch.cat([task.x_L, task.x_U])
    # Heads are fixed here: a source learns no class of L that it did not know.
    target, moved_sources = fresh_target(task), MovedSources(task.sources)
    features_SLF, features_SUF = renormalised_features(task.sources, x_N, (task.x_L, task.x_U))
    pseudo_U = torch.empty(len(task.x_U), dtype=torch.int64)

    @torch.no_grad()
    def renew_labels() -> None:
        moved_SUF = moved_sources.moved(features_SUF)
        predictions_SUC = moved_sources.predictions(moved_SUF)
        pseudo_U.copy_(cluster_labels(moved_SUF, predictions_SUC, moved_sources.mixture_S))

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        y_B, split = task.y_L[labelled_B], len(labelled_B)
        features_SBF = torch.cat(
            [features_SLF[:, labelled_B], features_SUF[:, unlabelled_B]], dim=1
        )
        mixed_BC = moved_sources(features_SBF)
        log_BC = mixed_BC.clamp_min(_SMALLEST).log()
        adaptation = (
            F.nll_loss(log_BC[:split], y_B)
            + information_loss(mixed_BC[split:])
            + PSEUDO_LABEL_WEIGHT * F.nll_loss(log_BC[split:], pseudo_U[unlabelled_B])
        )
        logits_LC, logits_UC = batch_logits(target, task, labelled_B, unlabelled_B)
        soft_targets_UC = mixed_BC[split:].detach()
        return adaptation + F.cross_entropy(logits_LC, y_B) + kd_loss(logits_UC, soft_targets_UC)

    groups = [
        parameter_group(target, training.learning_rate),
        parameter_group(moved_sources, training.source_learning_rate),
    ]
    rows = len(task.x_L), len(task.x_U)
    minimise(loss_of, groups, *rows, training, task.seed, renew_labels)
    # Weights of a source, not of a sample.
    mixture_S1 = moved_sources.mixture_S[:, None]
    return trained_target(
        task, target, diagnostics=FusionDiagnostics(mixture_SQ=mixture_spread(mixture_S1))
    )


METHODS = (
    Method(
        name="decision",
        title="DECISION-style",
        fit=fit_decision,
        sources_needed="selected",
        cost=moved_sources_cost,
    ),
)
