"""Batch-norm statistics of the new domain: in place, put back, and without a second copy."""

import gc
from collections.abc import Callable

import pytest
import torch

from graft.methods import find_method
from graft.methods.blocks import adaptation
from graft.methods.blocks.adaptation import renormalised, renormalised_features
from graft.models import Network
from graft.training import Source, TrainingTask, features_in_batches

MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]
MINIMISE = {
    "graft": "graft.methods.graft.minimise",
    "hat": "graft.methods.blocks.targets.minimise",
    "decision": "graft.methods.blocks.targets.minimise",
}


def num_networks() -> int:
    gc.collect()
    return sum(type(each) is Network for each in gc.get_objects())


def test_statistics_hold_inside_the_block_and_no_longer(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    source, x = make_source("right"), make_task().x_U
    before = features_in_batches(source.network, x)
    with renormalised(source.network, x) as statistics:
        inside = features_in_batches(source.network, x)
        assert all("encoder" in name for name in statistics)
    assert not torch.allclose(inside, before, atol=1e-3)
    assert torch.equal(features_in_batches(source.network, x), before)
    (apart,) = renormalised_features([source], x, [x])
    assert torch.equal(apart[0], inside)


@pytest.mark.parametrize("name", sorted(MINIMISE))
def test_a_device_holds_each_source_once(
    make_task: MakeTask, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    task = make_task([make_source("right"), make_source("small", architecture="cnn-small")])
    extra: list[int] = []
    before = num_networks()

    def counted(function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object, **options: object) -> None:
            extra.append(num_networks() - before)
            function(*arguments, **options)

        return call

    monkeypatch.setattr(adaptation, "renormalise", counted(adaptation.renormalise))
    module = MINIMISE[name].rsplit(".", 1)[0]
    monkeypatch.setattr(MINIMISE[name], counted(vars(__import__(module, fromlist="_"))["minimise"]))
    find_method(name).fit(task)
    # Twice for the statistics, once for the training: beside the sources there is the target.
    # Method graft renormalises the target at last.
    assert len(extra) == (4 if name == "graft" else 3)
    assert max(extra) == 1
