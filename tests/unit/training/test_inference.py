"""Predictions: masked by what a source knows, and the same in batches of any size."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core.config import ExpansionConfig
from graft.core.tasks import Task
from graft.models import build_network
from graft.training import (
    TrainingTask,
    features_in_batches,
    masked_probabilities,
    predict_in_batches,
)

TASK = Task(name="t", modality="imu", sample_shape=(2, 16), classes=("a", "b", "c"))
MASKS = st.lists(st.booleans(), min_size=3, max_size=3).filter(any)


@settings(deadline=None)
@given(MASKS, st.lists(st.floats(-50, 50), min_size=3, max_size=3))
def test_probabilities_are_a_distribution_over_the_classes_known(
    mask: list[bool], logits: list[float]
) -> None:
    probabilities_C = masked_probabilities(torch.tensor([logits]), torch.tensor(mask))[0]
    assert (probabilities_C[~torch.tensor(mask)] == 0).all()
    assert float(probabilities_C.sum()) == pytest.approx(1, abs=1e-6)


def test_a_mask_leaves_the_odds_among_the_known_as_they_were() -> None:
    # e^0 : e^ln3 = 1 : 3, whatever stood between them.
    logits_BC = torch.tensor([[0.0, 99.0, math.log(3)]])
    probabilities_BC = masked_probabilities(logits_BC, torch.tensor([True, False, True]))
    torch.testing.assert_close(probabilities_BC, torch.tensor([[0.25, 0.0, 0.75]]))


@pytest.mark.parametrize("batch_size", [1, 4, 10, 64])
def test_the_size_of_a_batch_does_not_change_a_prediction(batch_size: int) -> None:
    network = build_network("mlp", TASK, seed=0).train()
    x = torch.randn(10, 2, 16)
    logits_NC = predict_in_batches(network, x, batch_size)
    assert not network.training  # running statistics, not the batch's own
    assert not logits_NC.requires_grad
    torch.testing.assert_close(logits_NC, predict_in_batches(network, x))
    features_NF = features_in_batches(network, x, batch_size)
    torch.testing.assert_close(network.head(features_NF).detach(), logits_NC)


def test_a_training_task_knows_the_classes_of_its_labels() -> None:
    task = TrainingTask(
        domain_task=TASK,
        architecture="mlp",
        x_L=torch.zeros(2, 2, 16),
        y_L=torch.tensor([2, 0]),
        x_U=torch.zeros(1, 2, 16),
        sources=(),
        config=ExpansionConfig(),
        seed=0,
        hidden_y_U=torch.tensor([1]),
    )
    assert task.label_mask.tolist() == [True, False, True]
    assert "hidden" not in repr(task)
