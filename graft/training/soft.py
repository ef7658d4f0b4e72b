"""Compiled training on labelled rows beside unlabelled ones with soft targets.

Legend: L labelled, U unlabelled rows, S steps, B a batch, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.config import TrainingConfig
from graft.core.streams import Rows, concat
from graft.models import Network
from graft.training.compiled.build import kernels_built
from graft.training.compiled.calls import Augmentation, CompiledTraining, Objective
from graft.training.compiled.plan import KernelPlan, kernel_plan
from graft.training.loop import batch_rows, count_steps


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SoftTraining:
    """One network's training on  CE(L) + weight CE(soft targets, U), in place.

    Steps, batches and Adam are those of ``minimise``. ``rate`` scales the learning rate of a
    step, and ``augment(batch size, steps)`` draws the random numbers of all augmented batches.
    """

    network: Network
    x_L: Rows
    y_L: Tensor
    x_U: Rows
    soft_targets_UC: Tensor
    config: TrainingConfig
    seed: int
    weight: float = 1.0
    rate: Callable[[int], float] = lambda step: 1.0
    augment: Callable[[int, int], Augmentation] | None = None


def train_soft(training: SoftTraining) -> bool:
    """Train in the compiled trainer and leave the network in training mode; False, with nothing
    done, where it has no form for the network."""
    config, sizes = training.config, (len(training.x_L), len(training.x_U))
    rows_SB, split = joint_batches(*sizes, config, training.seed)
    x_N = concat([training.x_L, training.x_U])
    plan = compiled_plan(training.network, x_N, rows_SB.shape[1])
    if plan is None:
        return False
    y_LC = F.one_hot(training.y_L, training.network.num_classes).float()
    weight_B = torch.full((rows_SB.shape[1],), 1 / split)
    weight_B[split:] = training.weight / max(len(weight_B) - split, 1)
    objective = Objective(
        wanted_NC=torch.cat([y_LC, training.soft_targets_UC]), weight_B=weight_B, labelled=split
    )
    draws = None if training.augment is None else training.augment(*rows_SB.shape[::-1])
    compiled = CompiledTraining(plan, training.network, x_N, augmented=draws is not None)
    rates = [config.learning_rate * training.rate(step) for step in range(len(rows_SB))]
    compiled.run(rows_SB, objective, rates, config.weight_decay, draws)
    compiled.write_back()
    training.network.train()
    return True


def joint_batches(
    num_labelled: int, num_unlabelled: int, config: TrainingConfig, seed: int
) -> tuple[Tensor, int]:
    """Row numbers (S, B) into L and U, one after the other, and how many of a batch are of L."""
    _, steps = count_steps(num_labelled + num_unlabelled, config)
    labelled_SB = batch_rows(num_labelled, config.batch_size, seed, steps)
    unlabelled_SB = batch_rows(num_unlabelled, config.batch_size, seed + 1, steps)
    return torch.cat([labelled_SB, num_labelled + unlabelled_SB], dim=1), labelled_SB.shape[1]


def compiled_plan(network: Network, x: Rows, batch: int) -> KernelPlan | None:
    """The plan of a network for batches of these rows, or None without a compiled form."""
    if not kernels_built() or not isinstance(x, Tensor) or x.dtype != torch.float32 or batch < 1:
        return None
    return kernel_plan(network, tuple(x.shape[1:]), batch)
