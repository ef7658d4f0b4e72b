"""DECISION: what the mixture of sources starts as, what of it learns, and what the target gets."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from graft.errors import TransportError
from graft.methods.blocks.adaptation import stack_padded
from graft.methods.blocks.targets import mean_prediction
from graft.methods.source_free import MovedSources, fit_decision
from graft.training import Source, TrainedModel, TrainingTask, features_in_batches

MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]
Accuracy = Callable[[TrainedModel], float]


def stack_features(sources: Sequence[Source], x: torch.Tensor) -> torch.Tensor:
    return stack_padded([features_in_batches(source.network, x) for source in sources])


def test_it_starts_as_the_plain_mean_of_the_sources(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    partial = replace(make_source("right"), mask_C=np.array([True, True, False]))
    sources = (partial, make_source("small", architecture="cnn-small"))  # 64 and 32 features
    x = make_task().x_U
    with torch.no_grad():
        mixed_BC = MovedSources(sources)(stack_features(sources, x))
    torch.testing.assert_close(mixed_BC, mean_prediction(sources, x))


def test_features_and_shares_learn_and_heads_do_not(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    sources = (make_source("right"), make_source("misled", shift=1))
    moved_sources, task = MovedSources(sources), make_task()
    log_BC = moved_sources(stack_features(sources, task.x_L)).log()
    torch.nn.functional.nll_loss(log_BC, task.y_L).backward()
    learning = dict(moved_sources.named_parameters())
    assert set(learning) == {"map_SFF", "shift_S1F", "mixture_logits_S"}
    for parameter in learning.values():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    # Down the slope, the share of the source that is right grows.
    assert moved_sources.mixture_logits_S.grad[0] < 0 < moved_sources.mixture_logits_S.grad[1]
    torch.testing.assert_close(moved_sources.mixture_S, torch.tensor([0.5, 0.5]))


def test_the_target_learns_a_class_that_no_label_shows(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    task = make_task([make_source("right"), make_source("other")], labels=(0, 1) * 6)
    trained_model = fit_decision(task)
    assert trained_model.used == task.sources
    assert trained_model.architecture == task.architecture
    assert accuracy(trained_model) > 2 / 3  # whoever never heard of the third class is right on 2/3


def test_labels_decide_between_sources_that_disagree(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    sources = [make_source("right"), make_source("misled", shift=1)]
    assert accuracy(fit_decision(make_task(sources))) > 0.5  # chance is 1/3


def test_it_needs_a_source(make_task: MakeTask) -> None:
    with pytest.raises(TransportError, match="at least one source"):
        fit_decision(make_task())
