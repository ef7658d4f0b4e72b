"""The one loop: how many steps, over which rows, and the same every time."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from graft.core.config import TrainingConfig
from graft.training import count_steps, minimise, parameter_group

CONFIG = TrainingConfig(epochs=3, max_steps=1_000, batch_size=4)


def watch(
    num_labelled: int, num_unlabelled: int, config: TrainingConfig = CONFIG, seed: int = 0
) -> tuple[list[tuple[list[int], list[int]]], list[int]]:
    """The batches of every step, and the steps before which an epoch began."""
    layer = nn.Linear(1, 1)
    batches: list[tuple[list[int], list[int]]] = []
    epochs: list[int] = []

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        batches.append((labelled_B.tolist(), unlabelled_B.tolist()))
        return layer(torch.ones(1, 1)).sum()

    groups = [parameter_group(layer, 1e-3)]
    minimise(
        loss_of, groups, num_labelled, num_unlabelled, config, seed,
        lambda: epochs.append(len(batches)),
    )  # fmt: skip
    return batches, epochs


@pytest.mark.parametrize(
    ("num_rows", "epochs", "max_steps", "wanted"),
    [
        (100, 2, 300, (4, 8)),  # ceil(100 / 32) = 4 steps an epoch
        (96, 2, 300, (3, 6)),
        (1, 5, 300, (1, 5)),
        (100, 100, 300, (4, 300)),  # 400 would be more than allowed
    ],
)
def test_an_epoch_passes_once_over_all_rows(
    num_rows: int, epochs: int, max_steps: int, wanted: tuple[int, int]
) -> None:
    config = TrainingConfig(epochs=epochs, max_steps=max_steps, batch_size=32)
    assert count_steps(num_rows, config) == wanted


def test_the_loss_is_asked_for_once_a_step_and_epochs_begin_where_they_should() -> None:
    # 10 + 14 rows by 4: 6 steps an epoch, 3 epochs.
    batches, epochs = watch(10, 14)
    assert len(batches) == 18
    assert epochs == [0, 6, 12]


def test_unlabelled_rows_do_not_change_the_number_of_steps() -> None:
    assert len(watch(24, 0)[0]) == len(watch(10, 14)[0]) == len(watch(1, 23)[0])


def test_batches_run_through_one_permutation_of_the_rows_after_another() -> None:
    labelled = [row for batch, _ in watch(10, 14)[0] for row in batch]
    assert len(labelled) == 18 * 4
    passes = [labelled[start : start + 10] for start in range(0, 70, 10)]
    assert all(sorted(each) == list(range(10)) for each in passes)
    assert passes[0] != passes[1]


def test_every_row_without_a_label_is_met_in_every_epoch() -> None:
    batches, _ = watch(10, 14)
    for start in (0, 6, 12):
        met = {row for _, batch in batches[start : start + 6] for row in batch}
        assert met == set(range(14))


def test_few_rows_make_small_batches_and_none_make_empty_ones() -> None:
    batches, _ = watch(3, 0)
    assert all(sorted(labelled) == [0, 1, 2] for labelled, _ in batches)
    assert all(unlabelled == [] for _, unlabelled in batches)


def test_equal_seeds_meet_equal_batches() -> None:
    assert watch(10, 14, seed=5) == watch(10, 14, seed=5)
    assert watch(10, 14, seed=5) != watch(10, 14, seed=6)


def trained(seed: int, config: TrainingConfig = CONFIG) -> Tensor:
    torch.manual_seed(0)
    x, layer = torch.randn(12, 3), nn.Linear(3, 1)

    def loss_of(labelled_B: Tensor, _: Tensor) -> Tensor:
        return (layer(x[labelled_B]) - 1).square().mean()

    minimise(loss_of, [parameter_group(layer, 0.05)], 12, 0, config, seed)
    return layer.weight.detach()


def test_the_same_seed_gives_the_same_result_to_the_bit() -> None:
    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_the_loss_goes_down() -> None:
    layer, losses = nn.Linear(1, 1), []

    def loss_of(_: Tensor, __: Tensor) -> Tensor:
        loss = (layer(torch.ones(1, 1)) - 3).square().sum()
        losses.append(float(loss.detach()))
        return loss

    config = replace(CONFIG, epochs=200, weight_decay=0.0)
    minimise(loss_of, [parameter_group(layer, 0.05)], 1, 0, config, 0)
    assert losses[-1] < 1e-3 < losses[0]


def test_a_first_step_of_adam_is_as_long_as_the_learning_rate() -> None:
    # Without decay Adam's first step is lr * g / (|g| + eps): its group's rate, to either side.
    fast, slow = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    before = [layer.weight.item() for layer in (fast, slow)]

    def loss_of(_: Tensor, __: Tensor) -> Tensor:
        return (fast(torch.ones(1, 1)) - slow(torch.ones(1, 1))).sum()

    config = replace(CONFIG, epochs=1, weight_decay=0.0)
    groups = [parameter_group(fast, 0.1), parameter_group(slow, 0.01)]
    minimise(loss_of, groups, 1, 0, config, 0)
    assert fast.weight.item() == pytest.approx(before[0] - 0.1, abs=1e-5)
    assert slow.weight.item() == pytest.approx(before[1] + 0.01, abs=1e-5)
