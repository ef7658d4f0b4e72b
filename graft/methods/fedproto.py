"""FedProto: features are drawn to the class prototypes of other domains (AAAI 2022).

Published: L = CE + lambda mean_i ||f(x_i) - prototype of y_i||^2 / F, on labelled samples, in one
feature space that all share. Ours: sources that were trained apart have no common space, so the
target has a learnt linear map into each one's; lambda = 1. No model travels, only centroids.

Legend: S sources, B a batch of labelled samples, C classes, F features, T the target's features.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.methods.base import Method
from graft.methods.baselines import fit_label_only
from graft.methods.blocks.targets import fresh_target, trained_target
from graft.methods.cost import prototypes_cost
from graft.training import Prototypes, TrainedModel, TrainingTask, minimise, parameter_group

PROTOTYPE_WEIGHT = 1.0


class PrototypeSpace(nn.Module):
    """The sources' class centroids and the learnt maps from the target's features to theirs."""

    def __init__(self, prototypes: Sequence[Prototypes], num_features: int, seed: int) -> None:
        super().__init__()
        widths = [p.centroids_CF.shape[1] for p in prototypes]
        widest = max(widths)
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(num_features)
        map_STF = torch.empty(len(prototypes), num_features, widest)
        self.map_STF = nn.Parameter(map_STF.uniform_(-bound, bound, generator=generator))
        self.shift_S1F = nn.Parameter(torch.zeros(len(prototypes), 1, widest))
        padded = [
            F.pad(torch.from_numpy(p.centroids_CF), (0, widest - width))
            for p, width in zip(prototypes, widths, strict=True)
        ]
        self.centroids_SCF = torch.stack(padded)
        self.known_SC = (self.centroids_SCF != 0).any(2)
        self.width_S1 = torch.tensor(widths)[:, None]
        self.own_S1F = torch.arange(widest) < self.width_S1[:, :, None]

    def forward(self, features_BT: Tensor, y_B: Tensor) -> Tensor:
        """Mean of ||f(x_i) mapped - prototype of y_i||^2 / F over samples and sources.

        Only sources that have a prototype of y_i count; 0 where none has.
        """
        mapped_SBF = features_BT @ self.map_STF + self.shift_S1F
        gap_SBF = (mapped_SBF - self.centroids_SCF[:, y_B]) * self.own_S1F
        distance_SB = gap_SBF.square().sum(2) / self.width_S1
        known_SB = self.known_SC[:, y_B]
        return (distance_SB * known_SB).sum() / known_SB.sum().clamp_min(1)


def fit_fedproto(task: TrainingTask) -> TrainedModel:
    """Train on L with features drawn to the prototypes; without any, on L alone."""
    if not task.prototypes:
        return fit_label_only(task)
    training = task.config.training
    network = fresh_target(task)
    space = PrototypeSpace(task.prototypes, network.num_features, task.seed)

    def loss_of(labelled_B: Tensor, _: Tensor) -> Tensor:
        features_BT = network.features(task.x_L[labelled_B])
        y_B = task.y_L[labelled_B]
        distance: Tensor = space(features_BT, y_B)
        return F.cross_entropy(network.head(features_BT), y_B) + PROTOTYPE_WEIGHT * distance

    groups = [parameter_group(module, training.learning_rate) for module in (network, space)]
    minimise(loss_of, groups, len(task.x_L), len(task.x_U), training, task.seed)
    return trained_target(task, network, task.label_mask, used=task.prototypes)


METHODS = (
    Method(
        name="fedproto",
        title="FedProto-style",
        fit=fit_fedproto,
        sources_needed="centroids",
        cost=prototypes_cost,
    ),
)
