"""FedAvg and FedDF: methods that start from the average model of an architecture.

FedAvg (AISTATS 2017) within an architecture. Initial domains of one architecture train from a
common start; the server averages what they push (``graft_server.fedavg``), for
``training.fedavg_rounds`` rounds. A target domain fine-tunes the last average of its own
architecture on L. The initial domains' steps are divided among the rounds, so that an initial
domain takes as many for the average as for its own model (ours).

FedDF (NeurIPS 2020). Published: the parameters of each architecture are averaged; from there,
unlabelled samples carry KL(softmax of the teachers' mean logits || student). Ours: the average is
FedAvg's, the teachers are the selected sources, a source's logits count only in the classes that
it knows, and cross-entropy on L is added.

Legend: S sources, L labelled, U unlabelled, N samples, C classes.
"""

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor

from graft.core.seeding import derive_seed
from graft.methods.base import Method
from graft.methods.baselines import finetuned, plan_label_only, supervised
from graft.methods.blocks.targets import (
    distil,
    fresh_target,
    known_classes,
    require_sources,
    trained_target,
)
from graft.methods.cost import fedavg_local_cost
from graft.training import (
    SupervisedTraining,
    TrainedModel,
    TrainingTask,
    count_steps,
    masked_probabilities,
    predict_in_batches,
)

FEDAVG_LOCAL = "fedavg-local"


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
    require_sources(task.sources)
    logits = [predict_in_batches(source.network, task.x_U) for source in task.sources]
    masks = [torch.from_numpy(source.mask_C) for source in task.sources]
    soft_targets_UC = mean_logit_prediction(torch.stack(logits), torch.stack(masks))
    network, mask_C, used = fresh_target(task), known_classes(task), task.sources
    if task.average is not None:
        network = copy.deepcopy(task.average.network)
        mask_C, used = mask_C | task.average.mask_C, (*used, task.average)
    distil(network, soft_targets_UC, task)
    return trained_target(task, network, mask_C, used=used)


def mean_logit_prediction(logits_SNC: Tensor, mask_SC: Tensor) -> Tensor:
    """softmax_c of the mean logit over the sources that know class c, (N, C).

    A class that no source knows has probability 0.
    """
    knowing_C = mask_SC.sum(0)
    total_NC = (logits_SNC * mask_SC[:, None]).sum(0)
    return masked_probabilities(total_NC / knowing_C.clamp_min(1), knowing_C > 0)


METHODS = (
    supervised(
        plan_fedavg_local,
        name=FEDAVG_LOCAL,
        title="FedAvg, initial domains' part",
        sources_needed="none",
        cost=fedavg_local_cost,
        needs_average=True,
    ),
    supervised(
        plan_fedavg, name="fedavg", title="FedAvg", sources_needed="none", needs_average=True
    ),
    Method(
        name="feddf",
        title="FedDF-style",
        fit=fit_feddf,
        sources_needed="selected",
        needs_average=True,
    ),
)
