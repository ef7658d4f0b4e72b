"""One local trainer: Adam over steps of a labelled and an unlabelled batch (A6).

Legend: L labelled, U unlabelled samples, B a batch, S steps.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graft.core.config import TrainingConfig

StepLoss = Callable[[Tensor, Tensor], Tensor]


def count_steps(num_rows: int, config: TrainingConfig) -> tuple[int, int]:
    """(steps an epoch, steps in all): an epoch passes once over all rows, labelled or not.

    Every method of a domain takes the same number of steps, those without U as well.
    """
    per_epoch = math.ceil(num_rows / config.batch_size)
    return per_epoch, min(config.epochs * per_epoch, config.max_steps)


def minimise(
    loss_of: StepLoss,
    groups: Sequence[dict[str, Any]],
    num_labelled: int,
    num_unlabelled: int,
    config: TrainingConfig,
    seed: int,
    before_epoch: Callable[[], None] | None = None,
    rate: Callable[[int], float] = lambda step: 1.0,
) -> None:
    """Minimise ``loss_of(labelled_B, unlabelled_B)`` over the parameter groups.

    The two arguments are row indices into L and U (U's may be empty). ``groups`` are Adam's:
    each gives its parameters and learning rate, which ``rate(step)`` scales.
    """
    per_epoch, steps = count_steps(num_labelled + num_unlabelled, config)
    optimiser = torch.optim.Adam(groups, weight_decay=config.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    labelled_SB = batch_rows(num_labelled, config.batch_size, seed, steps)
    unlabelled_SB = batch_rows(num_unlabelled, config.batch_size, seed + 1, steps)
    with torch.random.fork_rng(devices=[]):
        # Dropout has no generator of its own to give it. torch.manual_seed would notify every
        # accelerator too, which takes as long as three steps.
        torch.default_generator.manual_seed(seed)
        for step in range(steps):
            if before_epoch is not None and step % per_epoch == 0:
                before_epoch()
            optimiser.zero_grad()
            loss_of(labelled_SB[step], unlabelled_SB[step]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()


def parameter_group(module: nn.Module, learning_rate: float) -> dict[str, Any]:
    """One Adam group: every parameter of a module at one learning rate."""
    return {"params": list(module.parameters()), "lr": learning_rate}


def batch_rows(num_rows: int, batch_size: int, seed: int, steps: int) -> Tensor:
    """Row indices of every step (steps, B), through one seeded permutation after another.

    Fewer rows than a batch make batches of all rows, and none make empty ones.
    """
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, num_rows)
    passes = math.ceil(steps * size / max(num_rows, 1))
    orders = [torch.randperm(num_rows, generator=generator) for _ in range(passes)]
    stream = torch.cat([torch.empty(0, dtype=torch.int64), *orders])
    return stream[: steps * size].view(steps, size)
