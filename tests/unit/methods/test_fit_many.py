"""Methods that can train many devices' models side by side give each what it gets alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from graft.methods import methods_by_name
from graft.models import parameters_of
from graft.training import Source, TrainingTask

MANY = sorted(name for name, method in methods_by_name().items() if method.fit_many is not None)


def test_the_plain_ways_to_train_can_all_be_stacked() -> None:
    wanted = {"initial", "label-only", "all-labels", "finetuned-any", "finetuned-same"}
    assert wanted | {"fedavg", "fedavg-local"} <= set(MANY)


def test_the_methods_of_targets_train_in_blocks() -> None:
    assert {"graft", "average-kd-selected", "average-kd-all", "feddf", "hat", "shot"} <= set(MANY)


@pytest.mark.parametrize("name", MANY)
def test_side_by_side_is_what_each_gets_alone(
    name: str, make_task: Callable[..., TrainingTask], make_source: Callable[..., Source]
) -> None:
    method = methods_by_name()[name]
    assert method.fit_many is not None
    source = make_source("right")
    whole = replace(make_task([source], max_steps=12), average=source)
    few = replace(make_task([source], labels=(0, 1, 2), max_steps=12), seed=5)
    tasks = [whole, few, replace(whole, seed=9)]
    if method.sources_needed != "selected" and "kd" not in name:
        tasks.append(replace(whole, sources=(), average=None))
    # A tenth of one of Adam's steps: where a gradient is near zero, rounding decides its sign.
    config = whole.config
    step = config.graft.learning_rate if "graft" in name else config.training.learning_rate
    together = method.fit_many(tasks, "cpu")
    for task, trained_model in zip(tasks, together, strict=True):
        alone = method.fit(task)
        assert (trained_model.architecture, trained_model.used) == (alone.architecture, alone.used)
        assert trained_model.mask_C.tolist() == alone.mask_C.tolist()
        assert not trained_model.network.training
        for key, values in parameters_of(alone.network).items():
            torch.testing.assert_close(
                torch.from_numpy(parameters_of(trained_model.network)[key]),
                torch.from_numpy(values),
                rtol=1e-3,
                atol=step / 10,
            )
