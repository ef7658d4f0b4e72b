"""SHOT: the information loss and the cluster labels by hand, and what moves of a source."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from graft.errors import TransportError
from graft.methods.baselines import fit_best_source, fit_finetuned_source
from graft.methods.source_free import cluster_labels, fit_shot, information_loss
from graft.training import Source, TrainedModel, TrainingTask

# S sources, U unlabelled samples, B a batch, C classes, F features.
MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]
Accuracy = Callable[[TrainedModel], float]
LN2, LN3 = math.log(2), math.log(3)


@pytest.mark.parametrize(
    ("predictions", "wanted"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], -LN2),  # sure, and evenly spread: 0 - ln 2
        ([[0.5, 0.5], [0.5, 0.5]], 0.0),  # ln 2 - ln 2
        ([[1.0, 0.0], [1.0, 0.0]], 0.0),  # sure, but always of one class: 0 - 0
        # H(1/4, 3/4) = 2 ln 2 - 3/4 ln 3, twice; their mean is even: - ln 2.
        ([[0.75, 0.25], [0.25, 0.75]], LN2 - 0.75 * LN3),
    ],
)
def test_information_is_sure_predictions_of_many_classes(
    predictions: list[list[float]], wanted: float
) -> None:
    loss = information_loss(torch.tensor(predictions))
    assert float(loss) == pytest.approx(wanted, abs=1e-5)


def test_the_loss_can_be_followed_from_a_masked_class() -> None:
    logits_BC = torch.tensor([[0.3, float("-inf"), 1.0]], requires_grad=True)
    information_loss(torch.softmax(logits_BC, dim=1)).backward()
    assert logits_BC.grad is not None
    assert torch.isfinite(logits_BC.grad).all()
    assert logits_BC.grad[0, 1] == 0


def test_a_sample_is_labelled_by_the_company_it_keeps() -> None:
    # Three samples point right, two up; the third is taken for class 1, but lies with class 0.
    features_UF = torch.tensor([[2.0, 0.0], [1.0, 0.1], [3.0, 0.0], [0.0, 1.0], [0.1, 4.0]])
    predictions_UC = torch.tensor(
        [[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.4, 0.6, 0.0], [0.1, 0.9, 0.0], [0.2, 0.8, 0.0]]
    )
    labels_U = cluster_labels(features_UF[None], predictions_UC[None], torch.ones(1))
    assert labels_U.tolist() == [0, 0, 0, 1, 1]


def test_a_class_that_nobody_predicts_is_no_label() -> None:
    # Class 2 has a little of every prediction, so its centroid lies in the middle of all.
    features_UF = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    predictions_UC = torch.tensor([[0.6, 0.0, 0.4], [0.0, 0.6, 0.4], [0.5, 0.1, 0.4]])
    labels_U = cluster_labels(features_UF[None], predictions_UC[None], torch.ones(1))
    assert labels_U.tolist() == [0, 1, 0]


@pytest.mark.parametrize(("mixture", "wanted"), [((0.9, 0.1), [0, 0, 1]), ((0.1, 0.9), [0, 1, 1])])
def test_spaces_are_weighed_by_their_sources_share(
    mixture: tuple[float, float], wanted: list[int]
) -> None:
    # The second sample lies with the first in one space, with the third in the other.
    right, up = [1.0, 0.0], [0.0, 1.0]
    features_SUF = torch.tensor([[right, right, up], [right, up, up]])
    predictions_UC = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    labels_U = cluster_labels(features_SUF, predictions_UC.expand(2, -1, -1), torch.tensor(mixture))
    assert labels_U.tolist() == wanted


def turned(task: TrainingTask, degrees: float) -> TrainingTask:
    """The training task with its two channels turned, as a sensor worn another way round."""
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return replace(
        task,
        x_L=torch.einsum("ij,njt->nit", turn, task.x_L),
        x_U=torch.einsum("ij,njt->nit", turn, task.x_U),
    )


def test_unlabelled_samples_keep_a_class_that_no_label_shows(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    # Turned by 55 degrees, and the third class without a label: what is known of it can only
    # come from the source and from U.
    task = turned(make_task([make_source("right")], labels=(0, 1) * 6, max_steps=120), 55)

    def right_on_u(trained_model: TrainedModel) -> float:
        with torch.no_grad():
            predicted_U = trained_model.network(task.x_U).argmax(1)
        return float((predicted_U == task.hidden_y_U).double().mean())

    moved = right_on_u(fit_shot(task))
    assert moved > 0.95
    assert moved > right_on_u(fit_finetuned_source(task))


def test_the_head_moves_only_where_a_label_is_new_to_it(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    right = make_source("right")
    partial = replace(right, mask_C=np.array([True, True, False]))
    for source, moves in ((right, False), (partial, True)):
        trained_model = fit_shot(make_task([source], max_steps=5))
        same = torch.equal(trained_model.network.head.weight, right.network.head.weight)
        assert same != moves
        assert trained_model.mask_C.all()


def test_it_starts_from_the_best_and_needs_one(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    right, misled = make_source("right"), make_source("misled", shift=1)
    task = make_task([misled, right])
    trained_model = fit_shot(task)
    assert trained_model.used == fit_best_source(task).used == (right,)
    assert accuracy(trained_model) > 0.9
    with pytest.raises(TransportError, match="at least one source"):
        fit_shot(make_task())
