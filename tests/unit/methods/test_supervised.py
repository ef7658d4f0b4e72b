"""Methods that can train many devices' models side by side give each what it gets alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from graft.methods import methods_by_name
from graft.models.zoo import parameters_of
from graft.training import Lesson, Source

MANY = sorted(name for name, method in methods_by_name().items() if method.fit_many is not None)


def test_the_plain_ways_to_train_can_all_be_stacked() -> None:
    wanted = {"founder", "label-only", "all-labels", "finetuned-any", "finetuned-same"}
    assert wanted | {"fedavg", "fedavg-local"} <= set(MANY)


@pytest.mark.parametrize("name", MANY)
def test_side_by_side_is_what_each_gets_alone(
    name: str, make_lesson: Callable[..., Lesson], make_source: Callable[..., Source]
) -> None:
    method = methods_by_name()[name]
    assert method.fit_many is not None
    source = make_source("right")
    whole = replace(make_lesson([source], max_steps=12), group=source)
    few = replace(make_lesson([source], labels=(0, 1, 2), max_steps=12), seed=5)
    lessons = [whole, few, replace(whole, seed=9), replace(whole, sources=(), group=None)]
    together = method.fit_many(lessons, "cpu")
    for lesson, learned in zip(lessons, together, strict=True):
        alone = method.fit(lesson)
        assert (learned.architecture, learned.used) == (alone.architecture, alone.used)
        assert learned.mask_C.tolist() == alone.mask_C.tolist()
        assert not learned.network.training
        for key, values in parameters_of(alone.network).items():
            torch.testing.assert_close(
                torch.from_numpy(parameters_of(learned.network)[key]),
                torch.from_numpy(values),
                rtol=1e-3,
                atol=1e-4,
            )
