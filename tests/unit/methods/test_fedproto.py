"""FedProto: the pull of prototypes by hand, and a target that feels it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from graft.methods.baselines import fit_label_only
from graft.methods.federated import PrototypeSpace, fit_fedproto
from graft.models import parameters_of
from graft.training import Prototypes, Source, TrainedModel, TrainingTask, features_in_batches

MakeTask = Callable[..., TrainingTask]
Accuracy = Callable[[TrainedModel], float]


def prototypes(place: int, centroids: list[list[float]]) -> Prototypes:
    return Prototypes(
        model_id=f"{place:064x}",
        domain_id=f"d{place}",
        centroids_CF=np.array(centroids, np.float32),
    )


def test_the_pull_is_the_mean_squared_distance_to_the_prototypes_that_are_known() -> None:
    # Source 0 has two features and no prototype of class 1; source 1 has one feature.
    space = PrototypeSpace(
        [prototypes(0, [[1.0, 0.0], [0.0, 0.0]]), prototypes(1, [[2.0], [5.0]])], 2, seed=0
    )
    with torch.no_grad():
        # The second column of source 1 is padding: whatever stands there may not count.
        space.map_STF.copy_(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 7.0], [0.0, 7.0]]]))
        space.shift_S1F.copy_(torch.tensor([[[0.0, 0.0]], [[0.0, 7.0]]]))
    features_BT = torch.tensor([[3.0, 4.0], [9.0, 9.0]])
    y_B = torch.tensor([0, 1])
    # Source 0: ((3 - 1)^2 + 4^2) / 2 = 10 and nothing; source 1: (3 - 2)^2 = 1 and (9 - 5)^2 = 16.
    torch.testing.assert_close(space(features_BT, y_B).detach(), torch.tensor((10 + 1 + 16) / 3))


def test_labels_without_a_prototype_pull_nowhere() -> None:
    space = PrototypeSpace([prototypes(0, [[1.0, 0.0], [0.0, 0.0]])], 2, seed=0)
    assert space(torch.ones(3, 2), torch.ones(3, dtype=torch.int64)).item() == 0


def test_without_prototypes_it_is_learning_from_labels_alone(make_task: MakeTask) -> None:
    task = make_task()
    alone, trained_model = (
        parameters_of(fit(task).network) for fit in (fit_label_only, fit_fedproto)
    )
    assert all(trained_model[name].tobytes() == alone[name].tobytes() for name in alone)


def test_the_target_takes_over_how_the_classes_lie_to_each_other(
    make_task: MakeTask, accuracy: Accuracy
) -> None:
    # To the source, classes 0 and 1 are one place and class 2 another.
    told = prototypes(0, [[0.0, 4.0], [0.0, 4.0], [4.0, 0.0]])
    task = replace(make_task(), prototypes=(told,))

    def closeness(trained_model: TrainedModel) -> float:
        features_LF = features_in_batches(trained_model.network, task.x_L)
        a, b, c = (features_LF[task.y_L == label].mean(0) for label in range(3))
        return float((a - b).norm() / (a - c).norm())

    pulled = fit_fedproto(task)
    assert pulled.used == (told,)
    assert accuracy(pulled) > 0.9
    assert closeness(pulled) < closeness(fit_label_only(task))


def test_it_fetches_no_model(make_task: MakeTask, make_source: Callable[..., Source]) -> None:
    with_models = make_task([make_source("misled", shift=1)])
    first, second = (
        parameters_of(fit_fedproto(each).network) for each in (make_task(), with_models)
    )
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
