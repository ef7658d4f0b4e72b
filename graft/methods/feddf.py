"""FedDF: start from the average of one's own kind, distil the ensemble of all (NeurIPS 2020).

Published: of each architecture the parameters are averaged; from there on, unlabelled samples
carry KL(softmax of the teachers' mean logits || student). Ours: the average is the group model
of FedAvg's rounds among the founders, the teachers are the selected sources, a source's logits
count only in the classes that it knows, and cross-entropy on L is added.

Legend: S sources, N samples, C classes.
"""

import copy

import torch
from torch import Tensor

from graft.methods.base import Method
from graft.methods.blocks.targets import distil, fresh_target, known_classes, require_sources
from graft.training import Learned, Lesson, masked_probabilities, predict_in_batches


def mean_logit_prediction(logits_SNC: Tensor, mask_SC: Tensor) -> Tensor:
    """softmax_c of the mean logit over the sources that know class c, (N, C).

    A class that no source knows has probability 0.
    """
    knowing_C = mask_SC.sum(0)
    total_NC = (logits_SNC * mask_SC[:, None]).sum(0)
    return masked_probabilities(total_NC / knowing_C.clamp_min(1), knowing_C > 0)


def fit_feddf(lesson: Lesson) -> Learned:
    """Distil the sources' mean logits on U into the group's average, or into a fresh target."""
    require_sources(lesson.sources)
    logits = [predict_in_batches(source.network, lesson.x_U) for source in lesson.sources]
    masks = [torch.from_numpy(source.mask_C) for source in lesson.sources]
    taught_UC = mean_logit_prediction(torch.stack(logits), torch.stack(masks))
    network, mask_C, used = fresh_target(lesson), known_classes(lesson), lesson.sources
    if lesson.group is not None:
        network = copy.deepcopy(lesson.group.network)
        mask_C, used = mask_C | lesson.group.mask_C, (*used, lesson.group)
    distil(network, taught_UC, lesson)
    return Learned(
        architecture=lesson.architecture, network=network.eval(), mask_C=mask_C, used=used
    )


METHODS = (Method(name="feddf", title="FedDF-style", fit=fit_feddf, reach="selected", group=True),)
