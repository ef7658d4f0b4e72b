"""Methods of federated learning: FedAvg and FedDF start from averages, FedProto sends prototypes.

FedAvg (AISTATS 2017) within an architecture. Initial domains of one architecture train from a
common start; the server averages what they push (``graft_server.fedavg``), for
``training.fedavg_rounds`` rounds. A target domain fine-tunes the last average of its own
architecture on L. The initial domains' steps are divided among the rounds, so that an initial
domain takes as many for the average as for its own model (ours).

FedDF (NeurIPS 2020). Published: the parameters of each architecture are averaged; from there,
unlabelled samples carry KL(softmax of the teachers' mean logits || student). Ours: the average is
FedAvg's, the teachers are the selected sources, a source's logits count only in the classes that
it knows, and cross-entropy on L is added.

FedProto (AAAI 2022). Published: L = CE + lambda mean_i ||f(x_i) - prototype of y_i||^2 / F, on
labelled samples, in one feature space that all share. Ours: sources that were trained apart have
no common space, so the target has a learnt linear map into each one's; lambda = 1. No model
travels, only centroids.

Legend: S sources, L labelled, U unlabelled, N samples, B a batch of labelled samples, C classes,
F features, T the target's features.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.core.seeding import derive_seed
from graft.core.tasks import OutputKind
from graft.methods.base import Method, each_compiled, selected
from graft.methods.baselines import finetuned, fit_label_only, plan_label_only, supervised
from graft.methods.blocks import targets
from graft.methods.cost import fedavg_local_cost, prototypes_cost
from graft.training import (
    Prototypes,
    SupervisedTraining,
    TrainedModel,
    TrainingTask,
    count_steps,
    masked_probabilities,
    parameter_group,
    predict_in_batches,
)

FEDAVG_LOCAL = "fedavg-local"
PROTOTYPE_WEIGHT = 1.0


def plan_fedavg(task: TrainingTask) -> SupervisedTraining:
    """Fine-tune the average model on L; where there is none, train on L alone."""
    return plan_label_only(task) if task.average is None else finetuned(task, task.average)


def plan_fedavg_local(task: TrainingTask) -> SupervisedTraining:
    """An initial domain's part of one round: its part of the steps on L, from the average."""
    config, num_rows = task.config.training, len(task.x_L) + len(task.x_U)
    steps = math.ceil(count_steps(num_rows, config)[1] / config.fedavg_rounds)
    return replace(
        plan_fedavg(task),
        config=replace(config, max_steps=steps),
        # Other batches in every round, for each starts from another model.
        seed=derive_seed(task.seed, task.average.model_id if task.average else ""),
    )


def fit_feddf(task: TrainingTask) -> TrainedModel:
    """Distil the sources' mean logits on U into the average model, or into a fresh target."""
    targets.require_sources(task.sources)
    logits = [
        predict_in_batches(source.network, task.x_U, compiled=task.compiled)
        for source in task.sources
    ]
    masks = [torch.from_numpy(source.mask_C) for source in task.sources]
    soft_targets_UC = mean_logit_prediction(torch.stack(logits), torch.stack(masks))
    network, mask_C, used = targets.fresh_target(task), targets.known_classes(task), task.sources
    if task.average is not None:
        network = copy.deepcopy(task.average.network)
        mask_C, used = mask_C | task.average.mask_C, (*used, task.average)
    targets.distil(network, soft_targets_UC, task)
    return targets.trained_target(task, network, mask_C, used=used)


def mean_logit_prediction(logits_SNC: Tensor, mask_SC: Tensor) -> Tensor:
    """softmax_c of the mean logit over the sources that know class c, (N, C).

    A class that no source knows has probability 0.
    """
    knowing_C = mask_SC.sum(0)
    total_NC = (logits_SNC * mask_SC[:, None]).sum(0)
    return masked_probabilities(total_NC / knowing_C.clamp_min(1), knowing_C > 0)


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
    network = targets.fresh_target(task)
    space = PrototypeSpace(task.prototypes, network.num_features, task.seed)

    def loss_of(labelled_B: Tensor, _: Tensor) -> Tensor:
        features_BT = network.features(task.x_L[labelled_B])
        y_B = task.y_L[labelled_B]
        distance: Tensor = space(features_BT, y_B)
        return F.cross_entropy(network.head(features_BT), y_B) + PROTOTYPE_WEIGHT * distance

    maps = parameter_group(space, task.config.training.learning_rate)
    targets.train_target(network, loss_of, task, maps)
    return targets.trained_target(task, network, task.label_mask, used=task.prototypes)


# An average of heads that give amounts in unlike units is no start.
_AVERAGED: tuple[OutputKind, ...] = ("classes", "labels")
METHODS = (
    supervised(
        plan_fedavg_local,
        name=FEDAVG_LOCAL,
        title="FedAvg, initial domains' part",
        cost=fedavg_local_cost,
        needs_average=True,
        outputs=_AVERAGED,
        trains_privately=True,
    ),
    supervised(
        plan_fedavg, name="fedavg", title="FedAvg", needs_average=True, trains_privately=True
    ),
    selected(
        name="feddf",
        title="FedDF-style",
        fit=fit_feddf,
        fit_many=each_compiled(fit_feddf),
        needs_average=True,
        outputs=_AVERAGED,
        trains_privately=True,
    ),
    Method(
        name="fedproto",
        title="FedProto-style",
        fit=fit_fedproto,
        sources_needed="centroids",
        cost=prototypes_cost,
    ),
)
