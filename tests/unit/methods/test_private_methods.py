"""What a method learns of a row in private training depends on no other row."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from graft.core.config import ExpansionConfig, PolicyConfig
from graft.errors import ConfigError
from graft.methods import find_method, methods_by_name, with_method_sections
from graft.training import PrivateTraining, SoftRows, Source, TrainingTask

MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]
PRIVATE = sorted(name for name, method in methods_by_name().items() if method.trains_privately)
USES = ("graft.methods.graft", "graft.methods.blocks.targets", "graft.training.supervised")


def free(sample_rate: float, steps: int) -> tuple[float, np.random.Generator]:
    return 1.0, np.random.default_rng(0)


def learnt_rows(
    name: str, task: TrainingTask, monkeypatch: pytest.MonkeyPatch
) -> tuple[SoftRows, dict[str, torch.Tensor]]:
    """What a method gives to private training: the rows, and the network before its first step."""
    seen: list[tuple[SoftRows, dict[str, torch.Tensor]]] = []

    def record(network: torch.nn.Module, rows: SoftRows, *_: Any, **__: Any) -> None:
        seen.append((rows, {n: t.clone() for n, t in network.state_dict().items()}))

    with monkeypatch.context() as patched:
        for module in USES:
            patched.setattr(f"{module}.minimise_privately", record)
            patched.setattr(f"{module}.minimise", lambda *_, **__: pytest.fail("plain training"))
        model = find_method(name).fit(task)
    ((rows, before),) = seen
    after = model.network.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)  # nothing else moved it
    return rows, before


@pytest.mark.parametrize("name", PRIVATE)
def test_one_row_changes_its_own_target_only(
    make_task: MakeTask, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sources = [make_source("right"), make_source("misled", shift=1)]
    task = replace(
        make_task(sources), private=PrivateTraining(clip_norm=1.0, pay=free), average=sources[0]
    )
    x_U = task.x_U.clone()
    x_U[3] = -x_U[3]
    (rows, before), (moved, start) = (
        learnt_rows(name, each, monkeypatch) for each in (task, replace(task, x_U=x_U))
    )
    assert all(torch.equal(before[n], start[n]) for n in before)
    at = len(task.x_L) + 3
    others = torch.arange(len(rows.x)) != at
    for one, other in (
        (rows.x, moved.x), (rows.target_NC, moved.target_NC), (rows.weight_N, moved.weight_N),
    ):  # fmt: skip
        torch.testing.assert_close(one[others], other[others], rtol=0, atol=1e-6)


def test_a_method_that_mixes_rows_is_refused_at_the_start() -> None:
    policy = PolicyConfig(train_epsilon=8.0, total_epsilon=8.0)
    with pytest.raises(ConfigError, match=r"method 'hat', wanted one of .*graft"):
        with_method_sections(ExpansionConfig(policy=policy))
    with_method_sections(ExpansionConfig(policy=policy, comparisons=("label-only",)))
    assert {"graft", "initial", "label-only", "fedavg", "average-kd-all"} <= set(PRIVATE)
