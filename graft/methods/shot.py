"""SHOT with labels: the best source moves its features under its own fixed head (ICML 2020).

Published, on U: L = mean entropy of the predictions - entropy of the mean prediction
+ 0.3 CE of pseudo-labels, which are the nearest class centroids in the features, found anew
each epoch. Ours: the source is the selected one that is best on L; cross-entropy on L is added.

Legend: S sources, L labelled, U unlabelled samples, B a batch, C classes, F features.
"""

import copy

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.methods.base import Method
from graft.methods.blocks.targets import best_source
from graft.methods.cost import shot_cost
from graft.training import (
    TrainedModel,
    TrainingTask,
    features_in_batches,
    masked_probabilities,
    minimise,
    parameter_group,
)

PSEUDO_LABEL_WEIGHT = 0.3
_SMALLEST = 1e-6


def fit_shot(task: TrainingTask) -> TrainedModel:
    """Move the best source's encoder to the domain; its head moves only where L shows a class
    that it never saw."""
    best, training = best_source(task), task.config.training
    known_C = best.mask_C | task.label_mask
    network = copy.deepcopy(best.network)
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
        logits_BC = network(torch.cat([task.x_L[labelled_B], task.x_U[unlabelled_B]]))
        logits_BC = logits_BC.masked_fill(unknown_C, float("-inf"))
        split = len(labelled_B)
        return (
            F.cross_entropy(logits_BC[:split], task.y_L[labelled_B])
            + information_loss(torch.softmax(logits_BC[split:], dim=1))
            + PSEUDO_LABEL_WEIGHT * F.cross_entropy(logits_BC[split:], pseudo_U[unlabelled_B])
        )

    groups = [parameter_group(network, training.learning_rate)]
    num_rows = len(task.x_L), len(task.x_U)
    minimise(loss_of, groups, *num_rows, training, task.seed, renew_labels)
    return TrainedModel(
        architecture=best.architecture, network=network.eval(), mask_C=known_C, used=(best,)
    )


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


METHODS = (
    Method(
        name="shot", title="SHOT-style", fit=fit_shot, sources_needed="selected", cost=shot_cost
    ),
)
