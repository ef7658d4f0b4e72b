"""AE-KD: the smallest mixture of gradients, by hand and against scipy's own solver."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from graft.methods.blocks.targets import kd_loss
from graft.methods.distillation import MAX_AEKD_WEIGHT, fit_aekd, min_norm_weights
from graft.training import Source, TrainedModel, TrainingTask

# S sources, D numbers of a gradient.
Matrix = npt.NDArray[np.float64]


def products(gradients_SD: Matrix) -> Matrix:
    result: Matrix = gradients_SD @ gradients_SD.T
    return result


def test_the_shorter_of_two_orthogonal_gradients_gets_the_most() -> None:
    # |a (1, 0) + (1 - a) (0, 2)|^2 = a^2 + 4 (1 - a)^2 is least at a = 4/5.
    products_SS = products(np.array([[1.0, 0.0], [0.0, 2.0]]))
    np.testing.assert_allclose(min_norm_weights(products_SS, largest=1.0), [0.8, 0.2])
    # 4/5 is more than a source may have.
    np.testing.assert_allclose(min_norm_weights(products_SS), [0.6, 0.4])


def test_gradients_that_cancel_are_mixed_to_nothing() -> None:
    gradients_SD = np.array([[3.0, 0.0], [-2.0, 0.0], [0.0, 5.0]])
    share_S = min_norm_weights(products(gradients_SD))
    np.testing.assert_allclose(share_S @ gradients_SD, 0, atol=1e-6)
    np.testing.assert_allclose(share_S, [0.4, 0.6, 0.0], atol=1e-6)  # 3 * 0.4 = 2 * 0.6


def test_an_only_source_has_all_and_equal_sources_share_alike() -> None:
    assert min_norm_weights(np.array([[7.0]])).tolist() == [1.0]
    np.testing.assert_allclose(min_norm_weights(np.ones((4, 4))), 0.25)
    np.testing.assert_allclose(min_norm_weights(np.zeros((3, 3))), 1 / 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.integers(1, 12), st.integers(0, 10_000))
@example(7, 5, 3333)  # needs more than 2,000 exchanges
def test_no_feasible_mixture_is_shorter_than_scipys_best(
    num_sources: int, num_numbers: int, seed: int
) -> None:
    gradients_SD = np.random.default_rng(seed).normal(size=(num_sources, num_numbers))
    products_SS = products(gradients_SD)
    share_S = min_norm_weights(products_SS)
    assert share_S.sum() == pytest.approx(1)
    assert share_S.min() >= 0
    assert share_S.max() <= MAX_AEKD_WEIGHT + 1e-12
    best = minimize(
        lambda a: 0.5 * a @ products_SS @ a,
        np.full(num_sources, 1 / num_sources),
        jac=lambda a: products_SS @ a,
        method="SLSQP",
        bounds=[(0, MAX_AEKD_WEIGHT)] * num_sources,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert best.success
    assert 0.5 * share_S @ products_SS @ share_S == pytest.approx(best.fun, rel=1e-4, abs=1e-6)


def test_the_gradient_of_a_divergence_at_the_logits_is_student_minus_teacher() -> None:
    torch.manual_seed(1)
    logits_BC = torch.randn(5, 3, dtype=torch.double, requires_grad=True)
    teacher_BC = torch.softmax(torch.randn(5, 3, dtype=torch.double), dim=1)
    (gradient_BC,) = torch.autograd.grad(kd_loss(logits_BC, teacher_BC), logits_BC)
    torch.testing.assert_close(5 * gradient_BC, (logits_BC.softmax(1) - teacher_BC).detach())


def test_it_teaches_a_class_that_no_label_shows(
    make_task: Callable[..., TrainingTask],
    make_source: Callable[..., Source],
    accuracy: Callable[[TrainedModel], float],
) -> None:
    task = make_task([make_source("right"), make_source("other")], labels=(0, 1) * 6)
    trained_model = fit_aekd(task)
    assert trained_model.used == task.sources
    assert accuracy(trained_model) > 2 / 3  # whoever never heard of the third class is right on 2/3
