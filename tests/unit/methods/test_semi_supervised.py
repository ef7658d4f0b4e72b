"""Baselines on L and U without a fusion: each learns from U where U has something to say."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from graft.core.config import ExpansionConfig, TrainingConfig
from graft.core.tasks import Task
from graft.errors import ConfigError
from graft.methods import find_method, require_deployable
from graft.methods.blocks import targets
from graft.methods.semi_supervised import Recipe, fit_recipe
from graft.training import Source, TrainedModel, TrainingTask, predict_in_batches

MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]
ON_U = ("pseudo-label", "fixmatch", "mean-teacher")
TASK = Task(name="waves", modality="audio", sample_shape=(1, 32), classes=("a", "b"))


def waves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """A wave of one of two frequencies at any phase, in noise."""
    rng = np.random.default_rng(seed)
    y_N = np.arange(count) % 2
    phase_N1 = rng.uniform(0, 2 * np.pi, (count, 1))
    time_T = np.arange(32) / 32
    wave_NT = np.sin(2 * np.pi * (2 + 2 * y_N[:, None]) * time_T + phase_N1)
    x_N1T = (wave_NT + rng.normal(0, 0.4, wave_NT.shape))[:, None].astype(np.float32)
    return torch.from_numpy(x_N1T), torch.from_numpy(y_N)


def wave_task(seed: int) -> TrainingTask:
    """Four labelled rows and two hundred unlabelled ones."""
    x_L, y_L = waves(4, seed=1000 + seed)
    x_U, y_U = waves(200, seed=2000 + seed)
    return TrainingTask(
        domain_task=TASK,
        architecture="mlp",
        x_L=x_L,
        y_L=y_L,
        x_U=x_U,
        sources=(),
        config=ExpansionConfig(training=TrainingConfig(max_steps=200)),
        seed=seed,
        hidden_y_U=y_U,
    )


def wave_accuracy(trained: TrainedModel) -> float:
    x_N, y_N = waves(400, seed=9)
    return float((predict_in_batches(trained.network, x_N).argmax(1) == y_N).double().mean())


def mean_accuracy(fit: Callable[[TrainingTask], TrainedModel], seeds: Sequence[int]) -> float:
    return float(np.mean([wave_accuracy(fit(wave_task(seed))) for seed in seeds]))


@pytest.fixture(scope="module")
def label_only() -> float:
    return mean_accuracy(fit_recipe, range(3))


@pytest.mark.parametrize("name", ON_U)
def test_u_makes_it_better_than_its_labels_alone(name: str, label_only: float) -> None:
    assert mean_accuracy(find_method(name).fit, range(3)) > label_only + 0.02


def test_label_spreading_learns_what_a_sources_features_say_of_u(
    make_task: MakeTask, make_source: MakeSource, accuracy: Callable[[TrainedModel], float]
) -> None:
    # A source whose labels are turned is wrong everywhere; its features still tell rows apart.
    task = make_task([make_source("turned", shift=1)], labels=(0, 1, 2))
    trained = find_method("label-spreading").fit(task)
    assert accuracy(trained) > 0.9
    assert [source.domain_id for source in trained.used] == ["turned"]


def test_fedavg_variants_start_from_the_average(
    make_task: MakeTask, make_source: MakeSource, accuracy: Callable[[TrainedModel], float]
) -> None:
    average = make_source("right")
    task = replace(make_task(labels=(0, 1, 2), max_steps=3), average=average)
    for name in ("fedavg-fixmatch", "fedavg-shot"):
        trained = find_method(name).fit(task)
        assert trained.used == (average,)
        assert accuracy(trained) > 0.9
        without = find_method(name).fit(replace(task, average=None))
        assert without.used == ()


def test_strong_augmentation_masks_a_quarter_of_each_sample(make_task: MakeTask) -> None:
    task = make_task()
    x = Recipe(task, targets.fresh_target(task)).strong(torch.ones(8, 2, 16))
    assert ((x == 0).all(1).sum(1) == 4).all()
    image = Recipe(replace(task, domain_task=replace(task.domain_task, modality="image")),
                   targets.fresh_target(task)).strong(torch.ones(4, 3, 8, 8))  # fmt: skip
    assert ((image == 0).all(1).sum((1, 2)) == 16).all()


def test_a_reference_is_no_method_that_a_system_may_use(make_task: MakeTask) -> None:
    with pytest.raises(ConfigError, match="pooled-reference"):
        require_deployable(ExpansionConfig(method="pooled-reference"))
    with pytest.raises(ConfigError, match="wanted a simulation"):
        find_method("pooled-reference").fit(make_task())
