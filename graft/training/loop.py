"""Adam, and one local trainer: its steps over a labelled and an unlabelled batch (A6).

Legend: L labelled, U unlabelled samples, B a batch, S steps.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from graft.core.config import TrainingConfig
from graft.models.placement import placement

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
    optimiser = Adam(groups, config.weight_decay)
    labelled_SB = batch_rows(num_labelled, config.batch_size, seed, steps)
    unlabelled_SB = batch_rows(num_unlabelled, config.batch_size, seed + 1, steps)
    with placement().seeded(seed):  # dropout has no generator of its own to give it
        for step in range(steps):
            if before_epoch is not None and step % per_epoch == 0:
                before_epoch()
            optimiser.zero_grad()
            loss = loss_of(labelled_SB[step], unlabelled_SB[step])
            if loss.requires_grad:  # a method may train only what an architecture has frozen
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step(rate(step))


class Adam:
    """``torch.optim.Adam(groups, weight_decay=weight_decay, fused=True)``, to the bit.

    That class imports torch's compiler when its first object is made, more than a second in every
    worker; the function that computes its steps does not.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], weight_decay: float = 0.0) -> None:
        self._groups = groups
        self._weight_decay = weight_decay
        # By parameter: the moving means of its gradient and its square, and its steps so far.
        self._state: dict[Tensor, tuple[Tensor, Tensor, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self._groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float = 1.0) -> None:
        """One step along the gradients; ``rate`` scales every group's learning rate."""
        for group in self._groups:
            moved = [p for p in group["params"] if p.grad is not None]
            state = [self._state_of(p) for p in moved]
            adam(
                moved,
                [p.grad for p in moved],
                [mean for mean, _, _ in state],
                [square for _, square, _ in state],
                [],
                [steps for _, _, steps in state],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=group["lr"] * rate,
                weight_decay=self._weight_decay,
                eps=1e-8,
                maximize=False,
            )

    def _state_of(self, parameter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if parameter not in self._state:
            steps = torch.zeros((), dtype=torch.float32, device=parameter.device)
            mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
            self._state[parameter] = mean, square, steps
        return self._state[parameter]


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
