"""Measuring this machine into a device class: the one place where host time becomes a figure of
the simulated clock. CPU seconds of one thread, medians of repeats."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from graft.core.config import GraftConfig, TrainingConfig
from graft.core.ports import Clock, Progress
from graft.core.tasks import Task
from graft.devices import DeviceClass, Pace
from graft.methods.graft import train_heads
from graft.models import build_network, network_cost
from graft.models.building import example_rows
from graft.training import minimise, parameter_group, predict_in_batches

# Batches of a dozen labels alone, and of as many rows as a step ever has.
_FEW_ROWS, _MANY_ROWS = 12, 64
# About what one domain holds.
_READ_ROWS = 112
_MATRIX = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How long to measure: medians over ``repeats``, each of so many steps of everything.

    Everything is measured once before anything is again, so that what else the machine does for
    a while weighs on all alike. With few steps, what a training takes once counts too much: a
    training task is some hundred steps.
    """

    repeats: int = 7
    steps: int = 60


def calibrate(
    task: Task,
    architectures: Sequence[str],
    *,
    name: str,
    source: str,
    memory_bytes: int,
    clock: Clock,
    effort: Effort | None = None,
    progress: Progress = lambda *_: None,
) -> DeviceClass:
    """This machine as a device class: what it reaches on each architecture for samples of a task.

    ``flops_per_s`` is what a large matrix product reaches, which the efficiencies are shares of.
    ``progress`` counts the repeats. Raises ArchitectureError for an architecture that
    the task does not have.
    """
    effort = effort or Effort()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        heads = _heads(task, effort.steps)
        costs = {"product": _repeated(_matrix_product(), effort.steps), "heads": heads}
        for architecture in architectures:
            costs |= _network_costs(architecture, task, effort.steps)
        with FlopCounterMode(display=False) as flops, _Counter() as counted:  # type: ignore[no-untyped-call]
            heads()
        seconds = _median_seconds(costs, clock, effort, progress)
    finally:
        torch.set_num_threads(threads)
    flops_per_s = 2 * _MATRIX**3 / seconds["product"]
    paces = {each: _pace(each, task, flops_per_s, seconds) for each in architectures}
    efficiency = statistics.median(pace.training for pace in paces.values())
    arithmetic_s = float(flops.get_total_flops()) / (efficiency * flops_per_s)
    besides_s = effort.steps * seconds["heads"] - arithmetic_s
    return DeviceClass(
        name=name,
        memory_bytes=memory_bytes,
        flops_per_s=flops_per_s,
        source=source,
        efficiency=efficiency,
        operation_s=max(besides_s, 0.0) / float(counted.calls),
        architectures=paces,
    )


def class_table(device: DeviceClass) -> dict[str, Any]:
    """The class as the tables of a file for ``devices.classes_file``."""
    row = {name: value for name, value in asdict(device).items() if value is not None}
    return {row.pop("name"): row}


def _median_seconds(
    costs: Mapping[str, Callable[[], object]], clock: Clock, effort: Effort, progress: Progress
) -> dict[str, float]:
    """Median seconds of a step of each work, which is so many; the first turn is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in costs}
    for repeat in range(effort.repeats + 1):
        progress("measuring", repeat, effort.repeats + 1)
        for name, cost in costs.items():
            start_s = clock()
            cost()
            if repeat:
                taken[name].append((clock() - start_s) / effort.steps)
    return {name: max(statistics.median(each), 1e-9) for name, each in taken.items()}


def _repeated(cost: Callable[[], object], times: int) -> Callable[[], object]:
    return lambda: [cost() for _ in range(times)]


def _matrix_product() -> Callable[[], object]:
    a, b = torch.ones(_MATRIX, _MATRIX), torch.ones(_MATRIX, _MATRIX)
    return lambda: a @ b


def _network_costs(architecture: str, task: Task, steps: int) -> dict[str, Callable[[], object]]:
    """Steps of training by the one loop that trains, and passes, with few rows and with many."""
    network = build_network(architecture, task, seed=0)
    x = example_rows(architecture, task, _READ_ROWS)
    if isinstance(x, Tensor) and x.is_floating_point():
        x = torch.randn_like(x)
    y_N = torch.arange(_READ_ROWS) % task.num_classes
    training = TrainingConfig(epochs=steps, max_steps=steps, batch_size=_MANY_ROWS)

    def loss_of(rows_B: Tensor, _: Tensor) -> Tensor:
        return F.cross_entropy(network(x[rows_B]), y_N[rows_B])

    def train(num_rows: int) -> None:
        network.train()
        minimise(loss_of, [parameter_group(network, 1e-3)], num_rows, 0, training, seed=0)

    costs: dict[str, Callable[[], object]] = {}
    for rows in (_FEW_ROWS, _MANY_ROWS):
        costs[f"step {architecture} {rows}"] = partial(train, rows)
    for rows in (_FEW_ROWS, _READ_ROWS):
        read = partial(predict_in_batches, network, x[:rows])
        costs[f"pass {architecture} {rows}"] = _repeated(read, steps)
    return costs


def _pace(architecture: str, task: Task, flops_per_s: float, seconds: Mapping[str, float]) -> Pace:
    """Lines through the times of steps, and of passes, with few rows and with many."""
    cost = network_cost(architecture, task)

    def line(kind: str, many_rows: int) -> tuple[float, float]:
        """Seconds a row, and seconds of no row at all."""
        few_s = seconds[f"{kind} {architecture} {_FEW_ROWS}"]
        many_s = seconds[f"{kind} {architecture} {many_rows}"]
        # A machine's noise may say that more rows take no longer.
        row_s = max(many_s - few_s, 0.01 * many_s) / (many_rows - _FEW_ROWS)
        return row_s, max(0.0, few_s - _FEW_ROWS * row_s)

    step_row_s, step_s = line("step", _MANY_ROWS)
    pass_row_s, pass_s = line("pass", _READ_ROWS)
    return Pace(
        training=cost.training_flops_per_sample / (step_row_s * flops_per_s),
        inference=cost.flops_per_sample / (pass_row_s * flops_per_s),
        step_s=step_s,
        pass_s=pass_s,
    )


def _heads(task: Task, steps: int) -> Callable[[], object]:
    """What methods are made of besides networks: steps of the heads of ten teachers of 64
    features, on few labels."""
    features_TLF = torch.randn(10, _FEW_ROWS, 64)
    weight_TFC, bias_TC = torch.randn(10, 64, task.num_classes), torch.zeros(10, task.num_classes)
    y_L = torch.arange(_FEW_ROWS) % task.num_classes
    known_TC = torch.ones(10, task.num_classes, dtype=torch.bool)
    settings = GraftConfig(head_steps=steps)
    return lambda: train_heads(features_TLF, y_L, weight_TFC, bias_TC, known_TC, settings)


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
