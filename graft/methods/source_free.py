"""Sources that adapt to the new domain, with labels: SHOT, one source, and DECISION, all of them.

SHOT (ICML 2020). Published, on U: L = mean entropy of the predictions - entropy of the mean
prediction + 0.3 CE of pseudo-labels, which are the nearest class centroids in the features, found
anew each epoch; the head is fixed. Ours: the source is the selected one that is best on L;
cross-entropy on L is added.

DECISION (CVPR 2021). Published: p(x) = sum_s a_s h_s(f_s(x)) with learnt weights a_s that sum to
1, heads h_s fixed; SHOT's loss of p, the centroids weighted by a_s. Ours: of each encoder only a
linear map behind its features learns (the features are computed once, with batch-norm statistics
of the new domain); cross-entropy on L is added; and the target learns from p as it grows,
because a device can keep one model.

Legend: S sources, L labelled, U unlabelled samples, B a batch, C classes, F features.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.core.exchange import FusionDiagnostics
from graft.core.records import BoolArray
from graft.core.streams import concat
from graft.methods.base import each_compiled, selected
from graft.methods.blocks import adaptation, fusion, targets
from graft.methods.cost import moved_sources_cost, shot_cost
from graft.models import Network
from graft.training import (
    CompiledTraining,
    Objective,
    Source,
    TrainedModel,
    TrainingTask,
    compiled_plan,
    count_steps,
    features_in_batches,
    joint_batches,
    masked_probabilities,
    parameter_group,
)

PSEUDO_LABEL_WEIGHT = 0.3
_SMALLEST = 1e-6


def fit_shot(task: TrainingTask) -> TrainedModel:
    """Move the best source's encoder to the domain; its head moves only where L shows a class
    that it never saw."""
    best = targets.best_source(task)
    known_C = best.mask_C | task.label_mask
    network = copy.deepcopy(best.network)
    if task.compiled and _adapt_compiled(network, task, best, known_C):
        return _adapted(network, best, known_C)
    network.head.requires_grad_(bool((known_C != best.mask_C).any()))
    unknown_C = ~torch.from_numpy(known_C)
    pseudo_U = torch.empty(len(task.x_U), dtype=torch.int64)

    @torch.no_grad()
    def renew_labels() -> None:
        features_UF = features_in_batches(network, task.x_U)
        network.train()
        predictions_UC = masked_probabilities(network.head(features_UF), ~unknown_C)
        pseudo_U.copy_(cluster_labels(features_UF[None], predictions_UC[None], torch.ones(1)))

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        logits_BC = network(concat([task.x_L[labelled_B], task.x_U[unlabelled_B]]))
        logits_BC = logits_BC.masked_fill(unknown_C, float("-inf"))
        split = len(labelled_B)
        return (
            F.cross_entropy(logits_BC[:split], task.y_L[labelled_B])
            + information_loss(torch.softmax(logits_BC[split:], dim=1))
            + PSEUDO_LABEL_WEIGHT * F.cross_entropy(logits_BC[split:], pseudo_U[unlabelled_B])
        )

    targets.train_target(network, loss_of, task, before_epoch=renew_labels)
    return _adapted(network, best, known_C)


def _adapted(network: Network, best: Source, known_C: BoolArray) -> TrainedModel:
    return TrainedModel(
        architecture=best.architecture, network=network.eval(), mask_C=known_C, used=(best,)
    )


def _adapt_compiled(network: Network, task: TrainingTask, best: Source, known_C: BoolArray) -> bool:
    """What ``fit_shot``'s steps do, up to float tolerance; False, with nothing done, where the
    compiled trainer has no form for them."""
    config, labelled, num_classes = task.config.training, len(task.x_L), len(known_C)
    rows_SB, split = joint_batches(labelled, len(task.x_U), config, task.seed)
    x_N = concat([task.x_L, task.x_U])
    plan = compiled_plan(network, x_N, rows_SB.shape[1])
    if plan is None or plan.plan.features != network.num_features or not len(task.x_U):
        return False
    wanted_NC = torch.zeros(len(x_N), num_classes)
    wanted_NC[:labelled] = F.one_hot(task.y_L, num_classes)
    weight_B = torch.full((rows_SB.shape[1],), 1 / split)
    weight_B[split:] = PSEUDO_LABEL_WEIGHT / (len(weight_B) - split)
    known = torch.from_numpy(known_C)
    objective = Objective(
        wanted_NC=wanted_NC, weight_B=weight_B, labelled=split, known_C=known, information=True,
        fixed_head=not (known_C != best.mask_C).any(),
    )  # fmt: skip
    training = CompiledTraining(plan, network, x_N)
    for epoch_SB in torch.split(rows_SB, count_steps(len(x_N), config)[0]):
        features_UF = training.features(slice(labelled, None))
        with torch.no_grad():
            predictions_UC = masked_probabilities(network.head(features_UF), known)
        pseudo_U = cluster_labels(features_UF[None], predictions_UC[None], torch.ones(1))
        wanted_NC[labelled:] = F.one_hot(pseudo_U, num_classes)
        rates = [config.learning_rate] * len(epoch_SB)
        training.run(epoch_SB, objective, rates, config.weight_decay)
        training.write_back()
    return True


def information_loss(predictions_BC: Tensor) -> Tensor:
    """Mean entropy of the predictions minus the entropy of their mean, in nats.

    It is least where each prediction is sure and all classes are predicted equally often.
    """
    return _entropy(predictions_BC).mean() - _entropy(predictions_BC.mean(0))


def _entropy(predictions_BC: Tensor) -> Tensor:
    # An exact 0 has no finite slope in p log p.
    return -(predictions_BC * (predictions_BC + _SMALLEST).log()).sum(-1)


@torch.no_grad()
def cluster_labels(features_SUF: Tensor, predictions_SUC: Tensor, mixture_S: Tensor) -> Tensor:
    """The nearest class of each sample, (U,): least sum_s mixture_s (1 - cos(f_s(x), c_sk)).

    c_sk is first the mean feature, weighted by the source's own prediction of k, then the mean
    over the samples nearest to k. A class that no sample is predicted as stays out.
    """
    num_classes = predictions_SUC.shape[2]
    unit_SUF = F.normalize(features_SUF, dim=2)
    nearest_U = torch.einsum("s,suc->uc", mixture_S, predictions_SUC).argmax(1)
    assigned_SUC = predictions_SUC
    for _ in range(2):
        absent_C = torch.bincount(nearest_U, minlength=num_classes) == 0
        centroids_SCF = F.normalize(assigned_SUC.transpose(1, 2) @ unit_SUF, dim=2)
        cosine_SUC = unit_SUF @ centroids_SCF.transpose(1, 2)
        similarity_UC = torch.einsum("s,suc->uc", mixture_S, cosine_SUC)
        nearest_U = similarity_UC.masked_fill(absent_C, float("-inf")).argmax(1)
        assigned_SUC = F.one_hot(nearest_U, num_classes).float().expand(len(mixture_S), -1, -1)
    return nearest_U


class MovedSources(nn.Module):
    """p(x) = sum_s a_s m_s softmax(h_s(A_s f_s(x) + b_s)): A_s, b_s and a_s learn, h_s does not.

    A_s starts as the identity, all a_s as 1 / S: at first p is the sources' plain mean.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        super().__init__()
        self.head_SFC, bias_SC = adaptation.stack_heads(sources)
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
    targets.require_sources(task.sources)
    x_N = concat([task.x_L, task.x_U])
    # Heads are fixed here: a source learns no class of L that it did not know.
    target, moved_sources = targets.fresh_target(task), MovedSources(task.sources)
    parts = task.x_L, task.x_U
    features_SLF, features_SUF = adaptation.renormalised_features(task.sources, x_N, parts)
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
        moved_loss = (
            F.nll_loss(log_BC[:split], y_B)
            + information_loss(mixed_BC[split:])
            + PSEUDO_LABEL_WEIGHT * F.nll_loss(log_BC[split:], pseudo_U[unlabelled_B])
        )
        logits_LC, logits_UC = targets.batch_logits(target, task, labelled_B, unlabelled_B)
        distillation = targets.kd_loss(logits_UC, mixed_BC[split:].detach())
        return moved_loss + F.cross_entropy(logits_LC, y_B) + distillation

    maps = parameter_group(moved_sources, task.config.training.source_learning_rate)
    targets.train_target(target, loss_of, task, maps, before_epoch=renew_labels)
    # Weights of a source, not of a sample.
    mixture_S1 = moved_sources.mixture_S[:, None]
    return targets.trained_target(
        task, target, diagnostics=FusionDiagnostics(mixture_SQ=fusion.mixture_spread(mixture_S1))
    )


METHODS = (
    selected(
        name="shot",
        title="SHOT-style",
        fit=fit_shot,
        fit_many=each_compiled(fit_shot),
        cost=shot_cost,
    ),
    selected(name="decision", title="DECISION-style", fit=fit_decision, cost=moved_sources_cost),
)
