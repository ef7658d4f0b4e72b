"""Private training: every row moves it by no more than it may, and the rest is what it was."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graft.core.config import TrainingConfig
from graft.core.tasks import Task
from graft.errors import PolicyError
from graft.models import Network, build_network
from graft.training import PrivateTraining, SoftRows, minimise_privately
from graft.training.private import (
    clipped_gradient_sum,
    clipped_gradient_sum_by_row,
    freeze_statistics,
)
from graft.training.supervised import SupervisedTraining, train_supervised, train_supervised_many

TASK = Task(name="t", modality="imu", sample_shape=(3, 32), classes=("a", "b", "c"))
ROWS = 12
CONFIG = TrainingConfig(epochs=4, batch_size=ROWS, max_steps=6, learning_rate=1e-2)


def some_rows(seed: int, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y_N = torch.randint(0, 3, (rows,), generator=generator)
    return torch.randn(rows, *TASK.sample_shape, generator=generator), y_N


def soft_rows(x: Tensor, y_N: Tensor) -> SoftRows:
    target_NC = torch.nn.functional.one_hot(y_N, 3).float()
    return SoftRows(x=x, target_NC=target_NC, weight_N=torch.ones(len(x)))


def paid(multiplier: float, clip_norm: float, seed: int = 0) -> PrivateTraining:
    def pay(sample_rate: float, steps: int) -> tuple[float, np.random.Generator]:
        return multiplier, np.random.default_rng(seed)

    return PrivateTraining(clip_norm=clip_norm, pay=pay)


def training(private: PrivateTraining | None, seed: int = 1, **changes: Any) -> SupervisedTraining:
    x, y_N = some_rows(seed)
    network = build_network("mlp", TASK, seed=3)
    freeze_statistics(network, x.shape[1:])
    fields: dict[str, Any] = {
        "network": network, "x": x, "y_N": y_N, "num_rows": ROWS, "config": CONFIG, "seed": 5,
        "architecture": "mlp", "mask_C": np.ones(3, np.bool_), "private": private,
    }  # fmt: skip
    return SupervisedTraining(**{**fields, **changes})


def tensors(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_without_noise_and_bound_the_private_steps_are_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Every row is in every batch, and batch norm is fixed in both.
    private = train_supervised(training(paid(0.0, math.inf)))
    plain = training(None)
    monkeypatch.setattr(plain.network, "train", lambda mode=True: plain.network)
    plain.network.eval()
    train_supervised(plain)
    start, wanted = tensors(training(None).network), tensors(plain.network)
    for name, tensor in tensors(private.network).items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-4, atol=1e-5)
    assert not torch.equal(start["head.weight"], wanted["head.weight"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 10.0), st.floats(0.01, 1e4))
def test_no_row_moves_the_sum_by_more_than_the_bound(
    seed: int, clip_norm: float, size: float
) -> None:
    network = build_network("mlp", TASK, seed=seed)
    freeze_statistics(network, torch.Size(TASK.sample_shape))
    x, y_N = some_rows(seed, 4)
    x[0] *= size  # however far out a row lies

    def sum_of(rows: slice) -> Tensor:
        total = clipped_gradient_sum(network, soft_rows(x[rows], y_N[rows]), clip_norm)
        return torch.cat([each.flatten() for each in total.values()])

    one, others = sum_of(slice(0, 1)), sum_of(slice(1, 4))
    assert float(one.norm()) <= clip_norm * (1 + 1e-5)
    torch.testing.assert_close(sum_of(slice(0, 4)), one + others, rtol=1e-4, atol=1e-5)
    assert float(sum_of(slice(0, 0)).norm()) == 0


@pytest.mark.parametrize("architecture", ["mlp", "cnn-small"])
def test_rows_at_once_and_one_by_one_have_the_same_sum(architecture: str) -> None:
    network = build_network(architecture, TASK, seed=2)
    x, y_N = some_rows(7, 3)
    network.train()
    freeze_statistics(network, x.shape[1:])
    at_once, by_row = (
        each(network, soft_rows(x, y_N), 0.5)
        for each in (clipped_gradient_sum, clipped_gradient_sum_by_row)
    )
    assert set(at_once) == {name for name, _ in network.named_parameters()}
    for name, tensor in at_once.items():
        torch.testing.assert_close(tensor, by_row[name], rtol=1e-4, atol=1e-6)


def test_a_recurrent_network_trains_row_by_row() -> None:
    network = build_network("gru", TASK, seed=2)
    start = tensors(network)
    two_steps = TrainingConfig(batch_size=4, max_steps=2)
    train_supervised(training(paid(0.0, 1.0), network=network, config=two_steps))
    assert not torch.equal(network.state_dict()["head.weight"], start["head.weight"])


def test_statistics_of_batch_norm_know_nothing_of_the_rows() -> None:
    models = [train_supervised(training(paid(1.0, 1.0), seed=seed)) for seed in (1, 2)]
    one, other = (dict(model.network.named_buffers()) for model in models)
    assert one
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(models[0].network.head.weight, models[1].network.head.weight)


@pytest.mark.parametrize("architecture", ["mlp", "cnn-small"])
def test_of_a_head_alone_the_encoder_stays_as_it_came(architecture: str) -> None:
    network = build_network(architecture, TASK, seed=2)
    freeze_statistics(network, torch.Size(TASK.sample_shape))
    start = tensors(network)
    train_supervised(training(replace(paid(1.0, 1.0), head_only=True), network=network))
    moved = {n for n, tensor in tensors(network).items() if not torch.equal(tensor, start[n])}
    assert moved == {"head.weight", "head.bias"}
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_equal_secrets_give_equal_models_and_many_train_as_one_does() -> None:
    one, other = (train_supervised(training(paid(1.0, 1.0))) for _ in range(2))
    (many, _) = train_supervised_many([training(paid(1.0, 1.0)), training(None)])
    elsewhere = train_supervised(training(paid(1.0, 1.0, seed=1)))
    states = [tensors(model.network) for model in (one, other, many, elsewhere)]
    same = [all(torch.equal(state[n], states[0][n]) for n in states[0]) for state in states]
    assert same == [True, True, True, False]


def test_noise_has_the_deviation_that_was_paid_for() -> None:
    """Rows of weight 0 have no gradient, so that one step's gradient is noise / (q N)."""
    x, y_N = some_rows(1)
    network = build_network("mlp", TASK, seed=3)
    seen: list[Tensor] = []
    rows = SoftRows(x=x, target_NC=soft_rows(x, y_N).target_NC, weight_N=torch.zeros(len(x)))
    one_step = TrainingConfig(epochs=1, batch_size=4, max_steps=1)

    def pay(sample_rate: float, steps: int) -> tuple[float, np.random.Generator]:
        assert (sample_rate, steps) == (4 / ROWS, 1)
        return 3.0, np.random.default_rng(0)

    private = PrivateTraining(clip_norm=0.5, pay=pay)
    minimise_privately(network, rows, one_step, private, num_rows=ROWS, seed=0)
    for parameter in network.parameters():
        assert parameter.grad is not None
        seen.append(parameter.grad.flatten())
    assert float(torch.cat(seen).std()) == pytest.approx(3.0 * 0.5 / 4, rel=0.05)


def test_a_budget_that_does_not_reach_leaves_the_network_as_it_was() -> None:
    def pay(sample_rate: float, steps: int) -> tuple[float, np.random.Generator]:
        raise PolicyError("training of d: got a privacy budget of epsilon 1")

    refused = training(PrivateTraining(clip_norm=1.0, pay=pay))
    before = tensors(refused.network)
    with pytest.raises(PolicyError, match="budget"):
        train_supervised(refused)
    after = tensors(refused.network)
    assert all(torch.equal(before[name], after[name]) for name in before)
