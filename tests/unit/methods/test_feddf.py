"""FedDF: mean logits by hand, and where the target starts."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from graft.core.config import TrainingConfig
from graft.errors import TransportError
from graft.methods.federated import fit_feddf, mean_logit_prediction
from graft.models import parameters_of
from graft.training import Source, TrainedModel, TrainingTask

MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]
ALL = torch.ones(2, 2, dtype=torch.bool)


def test_logits_are_averaged_before_the_softmax() -> None:
    # Mean of (0, ln 4) and (0, 0) is (0, ln 2): odds of 1 to 2.
    logits_SNC = torch.tensor([[[1.0, 4.0]], [[1.0, 1.0]]]).log()
    torch.testing.assert_close(
        mean_logit_prediction(logits_SNC, ALL), torch.tensor([[1 / 3, 2 / 3]])
    )


def test_only_those_who_know_a_class_speak_of_it() -> None:
    # Class 0: mean of ln 9 and 0 is ln 3. Class 1: source 0 alone, ln 3. Class 2: nobody.
    logits_SNC = torch.tensor([[[9.0, 3.0, 99.0]], [[1.0, 99.0, 99.0]]]).log()
    mask_SC = torch.tensor([[True, True, False], [True, False, False]])
    torch.testing.assert_close(
        mean_logit_prediction(logits_SNC, mask_SC), torch.tensor([[0.5, 0.5, 0.0]])
    )


def test_it_starts_from_the_groups_average_and_leaves_it_as_it_was(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    group = replace(make_source("group"), domain_id="group.mlp")
    before = {name: array.copy() for name, array in parameters_of(group.network).items()}
    task = make_task([make_source("right")])
    still = replace(task.config, training=TrainingConfig(learning_rate=1e-9, max_steps=3))
    trained_model = fit_feddf(replace(task, config=still, average=group))
    assert trained_model.used == (*task.sources, group)
    # At this learning rate three steps move nothing but batch-norm statistics.
    for name, array in parameters_of(trained_model.network).items():
        if "running" not in name:
            np.testing.assert_allclose(array, before[name], atol=1e-6)
    after = parameters_of(group.network)
    assert all(after[name].tobytes() == before[name].tobytes() for name in before)


def test_it_teaches_a_class_that_no_label_shows(
    make_task: MakeTask, make_source: MakeSource, accuracy: Callable[[TrainedModel], float]
) -> None:
    task = make_task([make_source("right"), make_source("other")], labels=(0, 1) * 6)
    assert accuracy(fit_feddf(task)) > 2 / 3  # whoever never heard of it is right on 2/3


def test_it_needs_a_source(make_task: MakeTask) -> None:
    with pytest.raises(TransportError, match="at least one source"):
        fit_feddf(make_task())
