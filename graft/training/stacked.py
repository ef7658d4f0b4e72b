"""Training thousands of small networks: those of one architecture together, or compiled.

Legend: N labelled rows, M models, B a batch, S steps, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.config import TrainingConfig
from graft.models import Network
from graft.training.compiled.build import load_kernels
from graft.training.compiled.plan import KernelPlan, compiled_features, kernel_plan, train_compiled
from graft.training.loop import batch_rows, count_steps, minimise, parameter_group
from graft.training.stacked_layers import StackedNetwork
from graft.training.stages import stages_of
from graft.training.task import features_of_parts

# The quickest of 8, 16 and 32 on a CPU: larger stacks leave the last-level cache.
STACK_SIZE = 16
# Rows of a forward pass of the compiled kind, whose activations then stay in the cache.
_ROWS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SupervisedJob:
    """One network's training by cross-entropy on labelled rows, in place.

    ``num_rows`` are the labelled and the unlabelled rows together: they decide the number of
    steps (``count_steps``), so that every method of a domain takes as many.
    """

    network: Network
    x: Tensor
    y_N: Tensor
    num_rows: int
    config: TrainingConfig
    seed: int


def train_alone(job: SupervisedJob) -> None:
    """Train one network by PyTorch's plain loop."""
    job.network.train()

    def loss_of(labelled_B: Tensor, _: Tensor) -> Tensor:
        return F.cross_entropy(job.network(job.x[labelled_B]), job.y_N[labelled_B])

    groups = [parameter_group(job.network, job.config.learning_rate)]
    minimise(loss_of, groups, len(job.x), job.num_rows - len(job.x), job.config, job.seed)


def train_supervised_many(jobs: Sequence[SupervisedJob], device: str = "cpu") -> None:
    """Give each network what ``train_alone`` gives it alone, up to float tolerance.

    Batches, steps, Adam and batch norm's statistics are the same whatever other jobs are
    beside it. On a CPU with a compiler each model trains in a kernel of its own; otherwise
    jobs of one architecture, sample shape, batch size, number of steps and configuration
    train as one stack on ``device``. What has neither form, and a group of one, takes the
    plain loop.
    """
    groups: dict[tuple[object, ...], list[SupervisedJob]] = {}
    for job in jobs:
        groups.setdefault(_group_key(job), []).append(job)
    for group in groups.values():
        plan = _plan_of(group[0]) if device == "cpu" else None
        if plan is not None:
            for job in group:
                _train_compiled(job, plan)
        elif len(group) > 1 and _has_rows(group[0]) and stages_of(group[0].network) is not None:
            for first in range(0, len(group), STACK_SIZE):
                _train_stack(group[first : first + STACK_SIZE], device)
        else:
            for job in group:
                train_alone(job)


def quick_features(network: Network, parts: Sequence[Tensor]) -> list[Tensor]:
    """What ``features_of_parts`` gives, up to float tolerance, compiled where it can be."""
    plan = None
    if load_kernels() is not None and all(x.dtype == torch.float32 for x in parts):
        plan = kernel_plan(network, tuple(parts[0].shape[1:]), _ROWS_AT_ONCE)
    if plan is None:
        return features_of_parts(network, parts)
    features_NF = compiled_features(plan, network, torch.cat(list(parts)))
    return list(torch.split(features_NF, [len(x) for x in parts]))


def _group_key(job: SupervisedJob) -> tuple[object, ...]:
    return (
        str(job.network), tuple(job.x.shape[1:]), job.x.dtype, _batch_size(job), _num_steps(job),
        job.config, _labels_fit(job), stages_of(job.network) is None,
    )  # fmt: skip


def _batch_size(job: SupervisedJob) -> int:
    return min(job.config.batch_size, len(job.x))


def _num_steps(job: SupervisedJob) -> int:
    return count_steps(job.num_rows, job.config)[1]


def _labels_fit(job: SupervisedJob) -> bool:
    """Labels that the plain loop would refuse must not reach a kernel as memory addresses."""
    classes = job.network.head.out_features
    return bool(((job.y_N >= 0) & (job.y_N < classes)).all()) and len(job.y_N) == len(job.x)


def _has_rows(job: SupervisedJob) -> bool:
    return len(job.x) > 0 and _labels_fit(job) and job.x.dtype == torch.float32


def _plan_of(job: SupervisedJob) -> KernelPlan | None:
    if load_kernels() is None or not _has_rows(job):
        return None
    return kernel_plan(job.network, tuple(job.x.shape[1:]), _batch_size(job))


def _train_compiled(job: SupervisedJob, plan: KernelPlan) -> None:
    job.network.train()
    rows_SB = batch_rows(len(job.x), job.config.batch_size, job.seed, _num_steps(job))
    train_compiled(plan, job.network, job.x, job.y_N, rows_SB, job.config)


def _train_stack(jobs: Sequence[SupervisedJob], device: str) -> None:
    """One block of a group, all models one step at a time."""
    for job in jobs:
        job.network.train()
    config, steps = jobs[0].config, _num_steps(jobs[0])
    stack = StackedNetwork([job.network for job in jobs], device)
    # One table of all rows: a model's row numbers start where its own rows do.
    starts = torch.tensor([0, *(len(job.x) for job in jobs[:-1])]).cumsum(0)
    x = torch.cat([stack.rows(job.x) for job in jobs])
    y = torch.cat([job.y_N for job in jobs])
    rows = [batch_rows(len(job.x), config.batch_size, job.seed, steps) for job in jobs]
    rows_SMB = torch.stack(rows, dim=1) + starts[:, None]
    x, y, rows_SMB = x.to(device), y.to(device), rows_SMB.to(device)
    optimiser = torch.optim.Adam(
        list(stack.parameters.values()), config.learning_rate, weight_decay=config.weight_decay,
        fused=True,
    )  # fmt: skip
    for rows_MB in rows_SMB:
        optimiser.zero_grad()
        logits_MBC = stack(x[rows_MB])
        # A sum over models of means over samples: each model's gradients are its own.
        loss = F.cross_entropy(logits_MBC.flatten(0, 1), y[rows_MB].flatten(), reduction="sum")
        (loss / rows_MB.shape[1]).backward()
        optimiser.step()
    stack.write_back()
