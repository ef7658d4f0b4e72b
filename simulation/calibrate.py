"""Measuring this machine into a device class: the one place where host time becomes a figure of
the simulated clock. CPU seconds of one thread, medians of repeats."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from graft.config import FusionConfig, TrainingConfig
from graft.devices import DeviceClass, Pace
from graft.methods.mixer import Mixer, mixer_loss
from graft.ports import Clock
from graft.training import Source, minimise, parameter_group, predict_in_batches
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
        efficiency = statistics.median(pace.training for pace in paces.values())
        operation_s = _operation_s(task, architectures, efficiency * flops_per_s, clock, effort)
    finally:
        torch.set_num_threads(threads)
    return DeviceClass(
        name=name,
        memory_bytes=memory_bytes,
        flops_per_s=flops_per_s,
        source=source,
        efficiency=efficiency,
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
    """Lines through the times of steps, and of passes, with few rows and with many."""
    cost = network_cost(architecture, task)
    step_row_s, step_s = _line(
        _FEW_ROWS, _MANY_ROWS, _step_seconds(architecture, task, clock, effort)
    )
    pass_row_s, pass_s = _line(
        _FEW_ROWS, _READ_ROWS, _pass_seconds(architecture, task, clock, effort)
    )
    return Pace(
        training=cost.training_flops_per_sample / (step_row_s * flops_per_s),
        inference=cost.flops_per_sample / (pass_row_s * flops_per_s),
        step_s=step_s,
        pass_s=pass_s,
    )


def _line(few_rows: int, many_rows: int, taken_s: tuple[float, float]) -> tuple[float, float]:
    """Seconds a row, and seconds of no row at all."""
    few_s, many_s = taken_s
    # A machine's noise may say that more rows take no longer.
    row_s = max(many_s - few_s, 0.01 * many_s) / (many_rows - few_rows)
    return row_s, max(0.0, few_s - few_rows * row_s)


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


def _pass_seconds(
    architecture: str, task: Task, clock: Clock, effort: Effort
) -> tuple[float, float]:
    """Median seconds of reading few rows and many."""
    network = build_network(architecture, task, seed=0).eval()
    few, many = (torch.randn(rows, *task.sample_shape) for rows in (_FEW_ROWS, _READ_ROWS))
    return (
        _median_s(lambda: predict_in_batches(network, few), clock, effort),
        _median_s(lambda: predict_in_batches(network, many), clock, effort),
    )


def _operation_s(
    task: Task, architectures: Sequence[str], arithmetic_per_s: float, clock: Clock, effort: Effort
) -> float:
    """Seconds of a small tensor operation besides its arithmetic, in the kind of mixture that
    methods are made of: a learning step of the attention mixer (A3) over five sources."""
    names = [architectures[place % len(architectures)] for place in range(5)]
    sources = [_source(name, task) for name in names]
    mixer = Mixer(sources, 64, 5, FusionConfig(), seed=0)
    rows = _FEW_ROWS + TrainingConfig().batch_size
    widest = max(source.network.num_features for source in sources)
    target_BF, sources_SBF = torch.randn(rows, 64), torch.randn(len(sources), rows, widest)
    y_B = torch.arange(rows) % task.num_classes
    held_RB = torch.zeros(5, rows, dtype=torch.bool)

    def step() -> None:
        fused_RBC, _ = mixer(target_BF, sources_SBF)
        mixer_loss(fused_RBC, y_B, held_RB).backward()  # type: ignore[no-untyped-call]

    with FlopCounterMode(display=False) as flops, _Counter() as counted:  # type: ignore[no-untyped-call]
        step()
    taken_s = _median_s(step, clock, effort)
    besides_s = taken_s - float(flops.get_total_flops()) / arithmetic_per_s
    calls = int(counted.calls)
    return max(besides_s, 0.0) / calls


def _source(architecture: str, task: Task) -> Source:
    return Source(
        model_id="",
        domain_id="",
        architecture=architecture,
        network=build_network(architecture, task, seed=0),
        mask_C=np.ones(task.num_classes, np.bool_),
    )


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
