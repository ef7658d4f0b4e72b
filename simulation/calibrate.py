"""Measuring this machine into a device class: the one place where host time becomes a figure of
the simulated clock. CPU seconds of one thread, medians of repeats."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from graft.config import TrainingConfig
from graft.devices import DeviceClass, Pace
from graft.ports import Clock
from graft.training import minimise, parameter_group, predict_in_batches
from graft.values import Task
from graft.zoo import build_network, network_cost

# Batches of a dozen labels alone, and of as many rows as a step ever has.
_FEW_ROWS, _MANY_ROWS = 12, 64
# About what one domain holds.
_READ_ROWS = 112
_MATRIX = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How long to measure: medians over ``repeats`` of ``steps`` training steps each."""

    repeats: int = 7
    steps: int = 30


def calibrate(
    task: Task,
    architectures: Sequence[str],
    *,
    name: str,
    source: str,
    memory_bytes: int,
    clock: Clock,
    effort: Effort | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> DeviceClass:
    """This machine as a device class: what it reaches on each architecture for samples of a task.

    ``flops_per_s`` is what a large matrix product reaches, which the efficiencies are shares of.
    Raises ArchitectureError for an architecture that the task does not have.
    """
    effort = effort or Effort()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        progress("matrix product")
        flops_per_s = _matrix_flops_per_s(clock, effort)
        paces = {}
        for architecture in architectures:
            progress(architecture)
            paces[architecture] = _pace(architecture, task, flops_per_s, clock, effort)
        progress("small operations")
        operation_s = _operation_s(clock, effort)
    finally:
        torch.set_num_threads(threads)
    return DeviceClass(
        name=name,
        memory_bytes=memory_bytes,
        flops_per_s=flops_per_s,
        source=source,
        efficiency=statistics.median(pace.training for pace in paces.values()),
        operation_s=operation_s,
        architectures=paces,
    )


def class_table(device: DeviceClass) -> dict[str, Any]:
    """The class as the tables of a file for ``devices.classes_file``."""
    row = asdict(device)
    return {row.pop("name"): row}


def _matrix_flops_per_s(clock: Clock, effort: Effort) -> float:
    a, b = torch.ones(_MATRIX, _MATRIX), torch.ones(_MATRIX, _MATRIX)
    return 2 * _MATRIX**3 / _median_s(lambda: a @ b, clock, effort)


def _pace(architecture: str, task: Task, flops_per_s: float, clock: Clock, effort: Effort) -> Pace:
    """A line through the time of steps with few rows and with many; and of one pass of reading."""
    cost = network_cost(architecture, task)
    few_s, many_s = _step_seconds(architecture, task, clock, effort)
    # A machine's noise may say that more rows take no longer.
    row_s = max(many_s - few_s, 0.01 * many_s) / (_MANY_ROWS - _FEW_ROWS)
    network = build_network(architecture, task, seed=0).eval()
    x = torch.randn(_READ_ROWS, *task.sample_shape)
    read_s = _median_s(lambda: predict_in_batches(network, x), clock, effort)
    return Pace(
        training=cost.training_flops_per_sample / (row_s * flops_per_s),
        inference=_READ_ROWS * cost.flops_per_sample / (read_s * flops_per_s),
        step_s=max(0.0, few_s - _FEW_ROWS * row_s),
    )


def _step_seconds(
    architecture: str, task: Task, clock: Clock, effort: Effort
) -> tuple[float, float]:
    """Median seconds of one step with few rows and with many, measured in turn, so that what
    else the machine does weighs on both alike."""
    network = build_network(architecture, task, seed=0).train()
    x = torch.randn(_MANY_ROWS, *task.sample_shape)
    y_N = torch.arange(_MANY_ROWS) % task.num_classes

    def loss_of(rows_B: Tensor, _: Tensor) -> Tensor:
        return F.cross_entropy(network(x[rows_B]), y_N[rows_B])

    def train(num_rows: int) -> None:
        training = TrainingConfig(
            epochs=effort.steps, max_steps=effort.steps, batch_size=_MANY_ROWS
        )
        minimise(loss_of, [parameter_group(network, 1e-3)], num_rows, 0, training, seed=0)

    seconds: dict[int, list[float]] = {_FEW_ROWS: [], _MANY_ROWS: []}
    train(_MANY_ROWS)
    for _ in range(effort.repeats):
        for num_rows, taken in seconds.items():
            start_s = clock()
            train(num_rows)
            taken.append((clock() - start_s) / effort.steps)
    return statistics.median(seconds[_FEW_ROWS]), statistics.median(seconds[_MANY_ROWS])


def _operation_s(clock: Clock, effort: Effort) -> float:
    """Seconds of a small tensor operation, forward or backward, in the kind of mixture that
    losses and heads are made of."""
    features_SBF, y_B = torch.randn(5, 32, 64), torch.arange(32) % 8
    head_SFC = torch.randn(5, 64, 8).requires_grad_()

    def fuse() -> None:
        probabilities_SBC = torch.softmax(features_SBF @ head_SFC, dim=2)
        fused_BC = torch.einsum("b,sbc->bc", torch.ones(32), probabilities_SBC)
        picked_B = fused_BC.gather(1, y_B[:, None])[:, 0].clamp_min(1e-6).log()
        (-(picked_B * 0.5).mean() + 1e-4 * (head_SFC**2).sum()).backward()  # type: ignore[no-untyped-call]

    with _Counter() as counted:  # type: ignore[no-untyped-call]
        fuse()
    calls = int(counted.calls)
    return _median_s(fuse, clock, effort) / calls


def _median_s(work: Callable[[], object], clock: Clock, effort: Effort) -> float:
    work()
    taken = []
    for _ in range(max(effort.repeats, 3)):
        start_s = clock()
        for _ in range(effort.steps):
            work()
        taken.append((clock() - start_s) / effort.steps)
    return max(statistics.median(taken), 1e-9)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the tensor operations that are carried out."""

    calls = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))
