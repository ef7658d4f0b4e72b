"""HMKD's losses by hand, its stops of the gradient, and who learns from whom."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graft.core.config import TrainingConfig
from graft.core.tasks import Task
from graft.errors import TransportError
from graft.methods.baselines import fit_label_only
from graft.methods.hmkd import (
    EnsembleFeature,
    Learner,
    MutualConfig,
    View,
    feature_loss,
    fit_hmkd,
    learn_mutually,
    network_loss,
    output_loss,
    tap_stages,
)
from graft.models import Network, build_network, network_cost, offered_architectures, parameters_of
from graft.models.encoders import IMAGE_ENCODERS, WINDOW_ENCODERS
from graft.training import Source, TrainedModel, TrainingTask

# B samples, C classes, W width of the ensemble feature.
MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]
Accuracy = Callable[[TrainedModel], float]
WINDOWS = Task(name="w", modality="imu", sample_shape=(6, 16), classes=tuple("abc"))
IMAGES = Task(name="i", modality="image", sample_shape=(1, 8, 8), classes=tuple("abc"))
TRAINING = TrainingConfig(epochs=1_000, max_steps=6, batch_size=8)
gradcheck: Callable[..., bool] = torch.autograd.gradcheck
EVEN_BC = torch.tensor([[1.0, 1.0]]).log()
UNEVEN_BC = torch.tensor([[3.0, 1.0]]).log()


def rows(count: int, task: Task, seed: int = 0) -> Tensor:
    return torch.randn(count, *task.sample_shape, generator=torch.Generator().manual_seed(seed))


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def view(logits: Sequence[Sequence[float]], feature: Sequence[Sequence[float]]) -> View:
    """Shares of each class as logits, and a feature; both are leaves that take gradients."""
    return View(
        logits_BC=torch.tensor(logits).log().requires_grad_(),
        feature_BW=torch.tensor(feature).requires_grad_(),
    )


def test_the_output_loss_and_its_mirror_are_the_two_divergences() -> None:
    # Even (1/2, 1/2) learning from (3/4, 1/4): KL = 3/4 ln(3/2) + 1/4 ln(1/2). The mirror:
    # 1/2 ln(2/3) + 1/2 ln 2.
    learning = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    mirror = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    assert float(output_loss(EVEN_BC, UNEVEN_BC)) == pytest.approx(learning)
    assert float(output_loss(UNEVEN_BC, EVEN_BC)) == pytest.approx(mirror)
    assert float(output_loss(UNEVEN_BC, UNEVEN_BC)) == pytest.approx(0, abs=1e-7)
    two = torch.cat([EVEN_BC, UNEVEN_BC])  # a batch mean: the second row agrees
    assert float(output_loss(two, UNEVEN_BC.repeat(2, 1))) == pytest.approx(learning / 2)


def test_the_feature_loss_is_the_squared_distance_over_the_width() -> None:
    # Rows of width 2: (1 + 4) / 2 and (0 + 4) / 2, mean 2.25.
    own_BW = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    other_BW = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    assert float(feature_loss(own_BW, other_BW)) == pytest.approx(2.25)
    assert float(feature_loss(other_BW, own_BW)) == pytest.approx(2.25)


def test_a_network_weighs_its_labels_against_the_other_network() -> None:
    own, other = view([[1.0, 1.0]], [[1.0, 2.0]]), view([[3.0, 1.0]], [[0.0, 0.0]])
    exchanged = 0.75 * math.log(1.5) + 0.25 * math.log(0.5) + 2.5
    loss = network_loss(own, other, torch.tensor([1]), exchange=0.1)
    assert loss.item() == pytest.approx(0.9 * math.log(2) + 0.1 * exchanged)
    # A second row without a label, alike in both: it halves the mean of what is exchanged.
    own, other = (
        view([*logits, [1.0, 1.0]], [*feature, [0.0, 0.0]])
        for logits, feature in (([[1.0, 1.0]], [[1.0, 2.0]]), ([[3.0, 1.0]], [[0.0, 0.0]]))
    )
    loss = network_loss(own, other, torch.tensor([1]), exchange=0.1)
    assert loss.item() == pytest.approx(0.9 * math.log(2) + 0.1 * exchanged / 2)


def test_no_gradient_reaches_the_other_network() -> None:
    own, other = view([[1.0, 1.0]], [[1.0, 2.0]]), view([[3.0, 1.0]], [[0.0, 0.0]])
    network_loss(own, other, torch.tensor([1]), 0.1).backward()  # type: ignore[no-untyped-call]
    assert other.logits_BC.grad is None
    assert other.feature_BW.grad is None
    # d/dF of 0.1 |F|^2 / 2 is 0.1 F; of the logits 0.9 (p - y) + 0.1 (p - p_other).
    torch.testing.assert_close(own.feature_BW.grad, torch.tensor([[0.1, 0.2]]))
    slope = 0.9 * 0.5 + 0.1 * (0.5 - 0.75)
    torch.testing.assert_close(own.logits_BC.grad, torch.tensor([[slope, -slope]]))


def test_the_sum_of_both_losses_is_two_separate_descents() -> None:
    y_B = torch.tensor([1])
    alone, beside = (view([[1.0, 1.0]], [[1.0, 2.0]]) for _ in range(2))
    other = view([[3.0, 1.0]], [[0.0, 0.0]])
    network_loss(alone, other, y_B, 0.1).backward()  # type: ignore[no-untyped-call]
    both = network_loss(beside, other, y_B, 0.1) + network_loss(other, beside, y_B, 0.1)
    both.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(beside.logits_BC.grad, alone.logits_BC.grad)
    torch.testing.assert_close(beside.feature_BW.grad, alone.feature_BW.grad)


def test_the_gradients_of_the_losses_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    own_BC, own_BW, other_BC, other_BW = (
        torch.randn(4, 3, dtype=torch.double, generator=generator) for _ in range(4)
    )
    other = View(logits_BC=other_BC, feature_BW=other_BW)

    def loss_of(logits_BC: Tensor, feature_BW: Tensor) -> Tensor:
        own = View(logits_BC=logits_BC, feature_BW=feature_BW)
        return network_loss(own, other, torch.tensor([0, 1, 2, 1]), 0.1)

    assert gradcheck(loss_of, (own_BC.requires_grad_(), own_BW.requires_grad_()))


def test_the_ensemble_feature_is_the_weighed_sum_of_normalised_projections() -> None:
    ensemble = EnsembleFeature((2, 2), width=2, seed=0)
    for projection in ensemble.projections:
        assert isinstance(projection, nn.Linear)
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)
    taps = [torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 8.0]])]
    # Normalised (1, -1) and (-1, 1). Equal shares cancel; shares of 3/4 and 1/4 leave a half.
    torch.testing.assert_close(ensemble(taps), torch.zeros(1, 2), atol=1e-4, rtol=0)
    with torch.no_grad():
        ensemble.omega_K.copy_(torch.tensor([3.0, 1.0]).log())
    torch.testing.assert_close(ensemble(taps), torch.tensor([[0.5, -0.5]]), atol=1e-4, rtol=0)


STAGES = {
    "cnn-small": [16, 32],
    "mlp": [128, 64],
    "mlp-500": [500, 500, 500],
    "gru": [32, 64],
    "cnn-medium": [32, 64, 64],
    "cnn-large": [48, 96, 128],
    "resnetlstman": [128, 256, 256, 128, 128],
    "image-cnn-small": [16, 32],
    "image-cnn-large": [32, 64, 64],
}


@pytest.mark.parametrize(
    ("name", "task"),
    [*((name, WINDOWS) for name in WINDOW_ENCODERS), *((name, IMAGES) for name in IMAGE_ENCODERS)],
)
def test_every_architecture_of_the_zoo_is_tapped_at_the_end_of_each_stage(
    name: str, task: Task
) -> None:
    network = build_network(name, task, seed=1).eval()
    x = rows(3, task)
    with torch.no_grad():
        taps, logits_BC = tap_stages(network, name, x)
        feature = network.features(x)
        assert torch.equal(logits_BC, network(x))
    assert [tap.shape for tap in taps] == [(3, width) for width in STAGES[name]]
    # The pooled last stage is the network's own feature; ResNetLSTMaN has two branches.
    ends = torch.cat([taps[2], taps[4]], dim=1) if name == "resnetlstman" else taps[-1]
    torch.testing.assert_close(ends, feature)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_without_listed_stages_is_tapped_at_its_feature() -> None:
    network = build_network("cnn-small", WINDOWS, seed=1).eval()
    x = rows(3, WINDOWS)
    with torch.no_grad():
        taps, _ = tap_stages(network, "of-another-kind", x)
        assert len(taps) == 1
        torch.testing.assert_close(taps[0], network.features(x))


def pair(config: MutualConfig) -> tuple[Learner, Learner]:
    """A student and a teacher of unlike structure after six steps on 24 rows."""
    x_N, y_N = rows(24, WINDOWS), torch.arange(24) % 3
    student, teacher = (
        Learner(build_network(name, WINDOWS, seed=seed), name, x_N, config.width, seed)
        for seed, name in enumerate(("mlp-500", "resnetlstman"))
    )
    learn_mutually(student, teacher, x_N, y_N, TRAINING, 5, config)
    return student, teacher


def test_both_learn_unless_the_teacher_is_frozen() -> None:
    mutual, frozen = MutualConfig(), MutualConfig(freeze_teacher=True)
    untrained = build_network("resnetlstman", WINDOWS, seed=1)
    student, teacher = pair(mutual)
    assert not student.training
    assert not teacher.training
    assert not same(teacher.network, untrained)
    assert not same(teacher.network.encoder.lstm_2, untrained.encoder.lstm_2)
    soft_targets, fixed = pair(frozen)
    assert same(fixed.network, untrained)  # its running statistics too
    assert not same(soft_targets.network, build_network("mlp-500", WINDOWS, seed=0))
    assert not same(soft_targets.network, student.network)


def test_the_ensemble_of_a_frozen_teacher_stays_and_the_students_moves() -> None:
    student, teacher = pair(MutualConfig(freeze_teacher=True))
    start = EnsembleFeature(STAGES["resnetlstman"], 128, seed=1)
    assert same(teacher.ensemble, start)
    assert (student.ensemble.omega_K != 0).any()


def test_dropout_and_batches_come_from_the_seed() -> None:
    torch.manual_seed(1)
    first, _ = pair(MutualConfig())
    torch.manual_seed(2)
    again, _ = pair(MutualConfig())
    assert same(first, again)


def test_without_an_exchange_the_student_learns_from_labels_alone(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    # Without U: batch norm would see its rows.
    task = make_task([make_source("right")], max_steps=10)
    task = replace(task, x_U=task.x_U[:0])
    student, teacher = (
        Learner(copy.deepcopy(network), "mlp", task.x_L, 128, 0)
        for network in (
            build_network("mlp", task.domain_task, task.seed),
            make_source("right").network,
        )
    )
    learn_mutually(
        student,
        teacher,
        task.x_L,
        task.y_L,
        task.config.training,
        task.seed,
        MutualConfig(exchange=0.0),
    )
    assert same(student.network, fit_label_only(task).network)


def test_the_best_source_teaches_and_stays_as_it_was_sent(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    right, misled = make_source("right"), make_source("misled", shift=1)
    before = copy.deepcopy(right.network)
    trained_model = fit_hmkd(make_task([misled, right]))
    assert trained_model.used == (right,)
    assert accuracy(trained_model) > 0.9
    assert same(right.network, before)


def test_the_target_knows_the_classes_of_its_labels_and_of_its_teacher(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    teacher = replace(make_source("right"), mask_C=np.array([True, False, False]))
    task = make_task([teacher], labels=(1,) * 12, max_steps=2)
    assert fit_hmkd(task).mask_C.tolist() == [True, True, False]


def test_rows_without_labels_are_exchanged_on(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    """All that it can know of class 2 comes from its teacher, on U."""
    task = make_task([make_source("right")], labels=(0, 1) * 6)
    assert accuracy(fit_hmkd(task)) > 0.9


def test_it_needs_a_source(make_task: MakeTask) -> None:
    with pytest.raises(TransportError, match="at least one source"):
        fit_hmkd(make_task())


def dropouts(network: Network) -> list[float]:
    return [module.p for module in network.modules() if isinstance(module, nn.Dropout)]


def test_the_dense_student_is_the_one_of_the_paper_and_only_on_request() -> None:
    network = build_network("mlp-500", WINDOWS, seed=0)
    assert dropouts(network) == [0.1, 0.2, 0.2, 0.3]
    parameters = (96 * 500 + 500) + 2 * (500 * 500 + 500) + (500 * 3 + 3)
    cost = network_cost("mlp-500", WINDOWS)
    assert cost.num_parameters == parameters
    assert cost.flops_per_sample == 2 * (96 * 500 + 2 * 500 * 500 + 500 * 3)
    assert "mlp-500" not in offered_architectures(WINDOWS)
    assert offered_architectures(WINDOWS, ("mlp-500",)) == ("mlp-500",)


def test_a_network_with_dropout_learns_the_same_from_the_same_seed(make_task: MakeTask) -> None:
    task = replace(make_task(max_steps=5), architecture="mlp-500")
    made = []
    for stranger in (1, 2):
        torch.manual_seed(stranger)
        made.append(parameters_of(fit_label_only(task).network))
    assert all(np.array_equal(made[0][name], made[1][name]) for name in made[0])
