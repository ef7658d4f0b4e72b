"""FedDF: start from the average of one's own kind, distil the ensemble of all (NeurIPS 2020).

Published: of each architecture the parameters are averaged; from there on, unlabelled samples
carry KL(softmax of the teachers' mean logits || student). Ours: the average is the group model
of FedAvg's rounds among the initial domains, the teachers are the selected sources, a source's
logits count only in the classes that it knows, and cross-entropy on L is added.

Legend: S sources, N samples, C classes.
"""

import copy

import torch
from torch import Tensor

from graft.methods.base import Method
from graft.methods.blocks.targets import distil, fresh_target, known_classes, require_sources
from graft.training import TrainedModel, TrainingTask, masked_probabilities, predict_in_batches


def mean_logit_prediction(logits_SNC: Tensor, mask_SC: Tensor) -> Tensor:
    """softmax_c of the mean logit over the sources that know class c, (N, C).

    A class that no source knows has probability 0.
    """
    knowing_C = mask_SC.sum(0)
    total_NC = (logits_SNC * mask_SC[:, None]).sum(0)
    return masked_probabilities(total_NC / knowing_C.clamp_min(1), knowing_C > 0)


def fit_feddf(task: TrainingTask) -> TrainedModel:
    """Distil the sources' mean logits on U into the group's average, or into a fresh target."""
    require_sources(task.sources)
    logits = [predict_in_batches(source.network, task.x_U) for source in task.sources]
    masks = [torch.from_numpy(source.mask_C) for source in task.sources]
    soft_targets_UC = mean_logit_prediction(torch.stack(logits), torch.stack(masks))
    network, mask_C, used = fresh_target(task), known_classes(task), task.sources
    if task.average is not None:
        network = copy.deepcopy(task.average.network)
        mask_C, used = mask_C | task.average.mask_C, (*used, task.average)
    distil(network, soft_targets_UC, task)
    return TrainedModel(
        architecture=task.architecture, network=network.eval(), mask_C=mask_C, used=used
    )


METHODS = (
    Method(
        name="feddf",
        title="FedDF-style",
        fit=fit_feddf,
        sources_needed="selected",
        needs_average=True,
    ),
)
