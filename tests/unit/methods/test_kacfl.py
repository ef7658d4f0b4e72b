"""KA-CFL's losses by hand, and what it learns without a label."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from graft.core.config import TrainingConfig
from graft.errors import TransportError
from graft.methods.distillation import (
    distil_soft_targets,
    fit_soft_targets,
    soft_cross_entropy,
    soft_targets,
)
from graft.methods.kacfl import (
    PUBLISHED,
    CommonFeatureConfig,
    CommonSpace,
    distil_common_features,
    fit_kacfl,
    mean_discrepancy,
)
from graft.models import Network, build_network, parameters_of
from graft.training import Source, TrainedModel, TrainingTask

# B samples, C classes, F features, H common features.
MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]
Accuracy = Callable[[TrainedModel], float]
SEED = 3
gradcheck: Callable[..., bool] = torch.autograd.gradcheck


def knowing(source: Source, *known: bool) -> Source:
    return replace(source, mask_C=np.array(known))


def same(one: Network, other: Network) -> bool:
    first, second = parameters_of(one), parameters_of(other)
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.parametrize("widths", [(1.0,), (0.5, 2.0)])
def test_the_discrepancy_of_two_rows_is_that_of_the_kernel(widths: tuple[float, ...]) -> None:
    # Normalised, x = (e1, e2) and y = (e1, e1); |e1 - e2|^2 = 2, so k = exp(-1 / w^2).
    # Means of k: x (2 + 2k) / 4, y 1, across (2 + 2k) / 4. Together 1 - (1 + k) / 2 = (1 - k) / 2.
    x_BH = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    y_BH = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    expected = sum((1 - math.exp(-1 / width**2)) / 2 for width in widths)
    assert float(mean_discrepancy(x_BH, y_BH, widths)) == pytest.approx(expected, rel=1e-6)
    assert float(mean_discrepancy(y_BH, x_BH, widths)) == pytest.approx(expected, rel=1e-6)


def test_the_same_rows_in_another_order_or_scale_have_no_discrepancy() -> None:
    x_BH = torch.randn(6, 4, generator=torch.Generator().manual_seed(SEED))
    scaled_BH = x_BH.flip(0) * torch.arange(1.0, 7.0)[:, None]
    # The narrowest width tells rows apart that float32 rounded differently.
    widths = PUBLISHED.kernel_widths[1:]
    assert float(mean_discrepancy(x_BH, scaled_BH, widths)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_a_narrow_kernel_has_a_floor_of_two_over_the_batch_and_no_slope(rows: int) -> None:
    # All rows are orthogonal: each is near to itself alone, and nothing of x to anything of y.
    every = torch.eye(2 * rows, requires_grad=True)
    loss = mean_discrepancy(every[:rows], every[rows:], (0.001,))
    assert loss.item() == pytest.approx(2 / rows)
    (slope,) = torch.autograd.grad(loss, every)
    assert (slope == 0).all()


def test_teachers_of_disjoint_classes_share_one_softmax() -> None:
    # The first knows classes 0 and 2, the second 1: logits ln 2, ln 5, ln 1 of a sum of 8.
    # What a head says of a class that it does not know is not heard.
    first_C, second_C = torch.tensor([2.0, 99.0, 1.0]), torch.tensor([99.0, 5.0, 99.0])
    logits_SNC = torch.stack([first_C.log(), second_C.log()])[:, None]
    mask_SC = torch.tensor([[True, False, True], [False, True, False]])
    expected = torch.tensor([[2.0, 5.0, 1.0]]) / 8
    torch.testing.assert_close(soft_targets(logits_SNC, mask_SC), expected)


def test_teachers_of_shared_classes_are_averaged_class_by_class() -> None:
    # First (3/4, 1/4, -), second (-, 1/2, 1/2): means 3/4, 3/8, 1/2 of a sum of 13/8.
    first_C, second_C = torch.tensor([3.0, 1.0, 99.0]), torch.tensor([99.0, 4.0, 4.0])
    logits_SNC = torch.stack([first_C.log(), second_C.log()])[:, None]
    mask_SC = torch.tensor([[True, True, False], [False, True, True]])
    expected = torch.tensor([[6.0, 3.0, 4.0]]) / 13
    torch.testing.assert_close(soft_targets(logits_SNC, mask_SC), expected)


def test_a_class_that_no_teacher_knows_is_never_a_target() -> None:
    logits_SNC = torch.zeros(2, 1, 3)
    disjoint_SC = torch.tensor([[True, False, False], [False, True, False]])
    shared_SC = torch.tensor([[True, True, False], [True, False, False]])
    for mask_SC in (disjoint_SC, shared_SC):
        target_NC = soft_targets(logits_SNC, mask_SC)
        assert float(target_NC[0, 2]) == 0
        assert float(target_NC.sum()) == pytest.approx(1)


def test_soft_cross_entropy_is_the_expected_surprise() -> None:
    # The student says (1/2, 1/4, 1/4); of the target (1/2, 1/4, 1/4) that is 1.5 ln 2, of the
    # sure target (0, 1, 0) it is 2 ln 2. Mean 1.75 ln 2.
    logits_BC = torch.tensor([[2.0, 1.0, 1.0]]).log().repeat(2, 1)
    target_BC = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    assert float(soft_cross_entropy(logits_BC, target_BC)) == pytest.approx(1.75 * math.log(2))


def test_the_gradients_of_the_losses_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(SEED)
    x_BH, y_BH, logits_BC = (
        torch.randn(4, 3, dtype=torch.double, generator=generator).requires_grad_()
        for _ in range(3)
    )
    target_BC = torch.softmax(y_BH.detach(), dim=1)
    assert gradcheck(lambda x, y: mean_discrepancy(x, y, (0.2, 1.0, 2.0)), (x_BH, y_BH))
    assert gradcheck(lambda logits: soft_cross_entropy(logits, target_BC), (logits_BC,))


def common_gradients(config: CommonFeatureConfig) -> tuple[CommonSpace, Tensor, Tensor]:
    """The space with its gradients, the loss and its slope in the student's features."""
    generator = torch.Generator().manual_seed(SEED)
    space = CommonSpace(5, (7, 3), width=4, seed=SEED)
    student_BF = torch.randn(6, 5, generator=generator, requires_grad=True)
    teachers = [torch.randn(6, width, generator=generator) for width in (7, 3)]
    loss = space.common_loss(student_BF, teachers, config)
    loss.backward()  # type: ignore[no-untyped-call]
    assert student_BF.grad is not None
    return space, loss.detach(), student_BF.grad


def test_the_student_is_moved_by_the_discrepancy_and_not_by_the_decoding() -> None:
    whole, loss, slope_BF = common_gradients(CommonFeatureConfig(decoding_weight=1.0))
    part, without, slope_without_BF = common_gradients(CommonFeatureConfig(decoding_weight=0.0))
    assert (slope_BF != 0).any()
    torch.testing.assert_close(slope_BF, slope_without_BF)
    assert loss > without
    for decoder in whole.decoders:
        assert all(p.grad is not None and (p.grad != 0).any() for p in decoder.parameters())
    assert all(p.grad is None or (p.grad == 0).all() for p in part.decoders.parameters())


def test_a_space_is_as_wide_as_published() -> None:
    # Adapters to 2h and ReLU; one extractor 2h to h to h; decoders h to F to F, a teacher each.
    space = CommonSpace(5, (7, 3), width=4, seed=SEED)
    adapters = [(8, 5), (8, 7), (8, 3)]
    layers = [*adapters, (4, 8), (4, 4), (7, 4), (7, 7), (3, 4), (3, 3)]
    shapes = [tuple(p.shape) for p in space.parameters() if p.dim() == 2]
    assert sorted(shapes) == sorted(layers)
    assert (space.student_adapter(torch.randn(9, 5)) >= 0).all()


@pytest.mark.parametrize("fit", [fit_kacfl, fit_soft_targets])
def test_disjoint_teachers_make_one_student_of_all_classes_without_a_label(
    make_task: MakeTask,
    make_source: MakeSource,
    accuracy: Accuracy,
    fit: Callable[[TrainingTask], TrainedModel],
) -> None:
    sources = [
        knowing(make_source("right"), True, True, False),
        knowing(make_source("other"), False, False, True),
    ]
    task = make_task(sources)
    trained_model = fit(task)
    assert trained_model.mask_C.all()
    assert trained_model.used == task.sources
    assert accuracy(trained_model) > 0.9  # either teacher alone is right on 2/3 or 1/3
    mislabelled = replace(task, y_L=(task.y_L + 1) % 3)
    assert same(fit(mislabelled).network, trained_model.network)


@pytest.mark.parametrize("fit", [fit_kacfl, fit_soft_targets])
def test_a_student_knows_what_its_teachers_know_whatever_is_labelled(
    make_task: MakeTask, make_source: MakeSource, fit: Callable[[TrainingTask], TrainedModel]
) -> None:
    task = make_task([knowing(make_source("right"), True, False, True)], max_steps=2)
    assert fit(task).mask_C.tolist() == [True, False, True]


@pytest.mark.parametrize("fit", [fit_kacfl, fit_soft_targets])
def test_it_needs_a_teacher(
    make_task: MakeTask, fit: Callable[[TrainingTask], TrainedModel]
) -> None:
    with pytest.raises(TransportError, match="at least one source"):
        fit(make_task())


def test_without_the_feature_terms_it_is_soft_target_distillation(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    task = make_task([make_source("right"), make_source("misled", shift=1)])
    training = TrainingConfig(max_steps=8, batch_size=16)
    plain, bare, whole = (build_network("cnn-small", task.domain_task, SEED) for _ in range(3))
    distil_soft_targets(plain, task.sources, task.x_U, training, SEED)
    off = CommonFeatureConfig(feature_weight=0.0)
    distil_common_features(bare, task.sources, task.x_U, training, SEED, off)
    distil_common_features(whole, task.sources, task.x_U, training, SEED)
    assert same(plain, bare)
    assert not same(plain, whole)


def test_every_batch_has_one_size(
    make_task: MakeTask, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    common_loss = CommonSpace.common_loss

    def counted(self: CommonSpace, student_BF: Tensor, *others: object) -> Tensor:
        sizes.append(len(student_BF))
        return common_loss(self, student_BF, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(CommonSpace, "common_loss", counted)
    task = make_task([make_source("right")])
    student = build_network("mlp", task.domain_task, SEED)
    training = TrainingConfig(max_steps=9, batch_size=16)
    distil_common_features(student, task.sources, task.x_U[:37], training, SEED)
    assert sizes == [16] * 9  # 37 is no multiple of 16: what is left begins the next pass


def test_maps_are_compared_position_by_position() -> None:
    """A map whose positions are exchanged is another point of the common space; pooled it is not."""
    space = CommonSpace(5, (7,), width=4, seed=SEED, positions=1)
    generator = torch.Generator().manual_seed(SEED)
    student, teacher = (torch.randn(6, width, 8, generator=generator) for width in (5, 7))
    config = CommonFeatureConfig(decoding_weight=0.0)
    loss = space.common_loss(student, [teacher], config)
    assert float(loss.detach()) > 0
    turned = space.common_loss(student, [teacher.flip(2)], config)
    assert float((loss - turned).detach().abs()) > 1e-4
    assert space.extractor(space.student_adapter(student)).shape == (6, 4, 8)


@pytest.mark.parametrize(("teacher", "positions"), [("cnn-medium", 1), ("gru", 1), ("mlp", 0)])
def test_maps_have_the_least_number_of_positions_of_all_networks(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, teacher: str, positions: int
) -> None:
    """A network without positions makes all of them vectors; soft targets are learnt either way."""
    task = make_task([])
    network = build_network(teacher, task.domain_task, SEED).eval()
    source = Source(
        model_id="a" * 64, domain_id="a", architecture=teacher, network=network,
        mask_C=np.ones(3, np.bool_),
    )  # fmt: skip
    seen: list[tuple[torch.Size, torch.Size]] = []
    common_loss = CommonSpace.common_loss

    def watched(
        self: CommonSpace, student: Tensor, teachers: list[Tensor], *rest: object
    ) -> Tensor:
        seen.append((student.shape, teachers[0].shape))
        return common_loss(self, student, teachers, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(CommonSpace, "common_loss", watched)
    student = build_network("cnn-small", task.domain_task, SEED)
    before = parameters_of(student)["encoder.0.0.weight"].copy()
    training = TrainingConfig(max_steps=2, batch_size=16)
    distil_common_features(
        student, [source], task.x_U, training, SEED, PUBLISHED, maps_of="cnn-small"
    )
    assert not np.array_equal(before, parameters_of(student)["encoder.0.0.weight"])
    (own, other), *_ = seen
    assert own[2:] == other[2:]
    assert len(own) == 2 + positions
