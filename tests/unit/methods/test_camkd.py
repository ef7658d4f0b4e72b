"""CA-MKD: shares by hand, and what they are good for."""

from collections.abc import Callable

import pytest
import torch

from graft.methods.blocks.targets import kd_loss
from graft.methods.distillation import (
    confidence_weights,
    fit_camkd,
    label_cross_entropy,
    prediction_entropy,
)
from graft.training import Source, TrainedModel, TrainingTask

# S sources, N samples, C classes.
LN2, LN3 = torch.tensor(2.0).log(), torch.tensor(3.0).log()


def test_two_sources_share_against_their_doubt() -> None:
    # softmax(0, ln 3) = (1, 3) / 4, so the shares are 1 - 1/4 and 1 - 3/4.
    mixture_SN = confidence_weights(torch.tensor([[0.0], [LN3]]))
    torch.testing.assert_close(mixture_SN, torch.tensor([[0.75], [0.25]]))


def test_three_sources_share_what_is_left_over_two() -> None:
    # softmax(0, 0, ln 2) = (1, 1, 2) / 4; (1 - 1/4) / 2 = 3/8 twice, (1 - 2/4) / 2 = 1/4.
    mixture_SN = confidence_weights(torch.tensor([[0.0], [0.0], [LN2]]))
    torch.testing.assert_close(mixture_SN[:, 0], torch.tensor([0.375, 0.375, 0.25]))


def test_an_only_source_has_all() -> None:
    assert confidence_weights(torch.tensor([[5.0, 0.0]])).tolist() == [[1.0, 1.0]]


def test_doubt_is_surprise_where_a_label_is_known_and_entropy_where_none_is() -> None:
    predictions_SNC = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.0, 1.0]]])
    y_N = torch.tensor([0, 0])
    sure_of_the_wrong = -torch.tensor(1e-6).log()  # a mask's 0 must not be an endless doubt
    torch.testing.assert_close(
        label_cross_entropy(predictions_SNC, y_N),
        torch.tensor([[LN2, 0.0], [2 * LN2, sure_of_the_wrong]]),
    )
    # H(1/4, 3/4) = 2 ln 2 / 4 + 3/4 (2 ln 2 - ln 3) = 2 ln 2 - 3/4 ln 3.
    torch.testing.assert_close(
        prediction_entropy(predictions_SNC), torch.tensor([[LN2, 0.0], [2 * LN2 - 0.75 * LN3, 0.0]])
    )


def test_one_divergence_from_the_mixture_pulls_like_the_mixture_of_divergences() -> None:
    torch.manual_seed(0)
    predictions_SNC = torch.softmax(torch.randn(3, 6, 4, dtype=torch.double), dim=2)
    mixture_SN = confidence_weights(prediction_entropy(predictions_SNC))
    logits_NC = torch.randn(6, 4, dtype=torch.double, requires_grad=True)
    each_SN = (predictions_SNC * (predictions_SNC.log() - logits_NC.log_softmax(1))).sum(2)
    (apart,) = torch.autograd.grad((mixture_SN * each_SN).sum(0).mean(), logits_NC)
    soft_targets_NC = torch.einsum("sn,snc->nc", mixture_SN, predictions_SNC)
    (together,) = torch.autograd.grad(kd_loss(logits_NC, soft_targets_NC), logits_NC)
    torch.testing.assert_close(apart, together)


def test_a_source_that_is_wrong_about_the_labels_misleads_less_than_in_the_plain_mean(
    make_task: Callable[..., TrainingTask],
    make_source: Callable[..., Source],
    accuracy: Callable[[TrainedModel], float],
) -> None:
    right, misled = make_source("right"), make_source("misled", shift=1)
    trained_model = fit_camkd(make_task([right, misled]))
    assert trained_model.used == (right, misled)
    assert accuracy(trained_model) > 0.5  # chance is 1/3


@pytest.mark.parametrize("num_sources", [1, 2, 5])
def test_shares_sum_to_one_and_favour_the_sure(num_sources: int) -> None:
    doubt_SN = torch.linspace(0, 3, num_sources)[:, None].repeat(1, 2)
    mixture_SN = confidence_weights(doubt_SN)
    torch.testing.assert_close(mixture_SN.sum(0), torch.ones(2))
    assert (mixture_SN.diff(dim=0) < 0).all()
