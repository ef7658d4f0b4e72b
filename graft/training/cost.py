"""Compute cost of a training task: what it depends on, and the seconds that a device needs.

compute_s = FLOPs / (device FLOP/s x efficiency), forward and backward, counted from the
architecture. Where a device was measured, terms are added (ours): what a training step and a
forward pass take however few their rows, and what a small tensor operation takes besides its
arithmetic. On a small network they are most of the time.
"""

from dataclasses import dataclass

from graft.core.config import ExpansionConfig
from graft.core.tasks import Task
from graft.devices import DeviceClass
from graft.models import NetworkCost, network_cost
from graft.training.loop import count_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkloadShape:
    """A training task without its data: names of architectures and numbers of rows.

    ``sources`` are the architectures of the models that the device was sent for the method,
    ``used`` of those that the finished model learnt from, ``trained_model`` is its own.
    ``prototypes``: how many sources' centroids came.
    """

    task: Task
    config: ExpansionConfig
    architecture: str
    trained_model: str
    sources: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    prototypes: int = 0
    num_labelled: int
    num_unlabelled: int

    @property
    def num_rows(self) -> int:
        return self.num_labelled + self.num_unlabelled

    @property
    def steps(self) -> int:
        """The steps that every method takes unless it says otherwise."""
        return count_steps(self.num_rows, self.config.training)[1]

    @property
    def epochs(self) -> int:
        """How often an epoch begins within ``steps``."""
        per_epoch, steps = count_steps(self.num_rows, self.config.training)
        return -(-steps // per_epoch)

    def batch(self, num_rows: int) -> int:
        """Rows of one step's batch out of ``num_rows``."""
        return min(self.config.training.batch_size, num_rows)

    def cost(self, architecture: str) -> NetworkCost:
        return network_cost(architecture, self.task)

    def widest(self) -> int:
        """Features of the widest source."""
        return max((self.cost(name).num_features for name in self.sources), default=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Steps of one architecture, forward and backward, of ``rows`` each."""

    architecture: str
    steps: int
    rows: int

    def flops(self, task: Task) -> float:
        cost = network_cost(self.architecture, task)
        return float(self.steps * self.rows * cost.training_flops_per_sample)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Forward passes of one architecture, of ``rows`` each."""

    architecture: str
    rows: int
    passes: int = 1

    def flops(self, task: Task) -> float:
        cost = network_cost(self.architecture, task)
        return float(self.passes * self.rows * cost.flops_per_sample)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeCost:
    """What a device computes for one request. ``flops`` and ``operations`` (small tensor
    operations) are those beside the networks themselves: heads, mixers, losses, graphs."""

    trained: tuple[Training, ...] = ()
    read: tuple[Reading, ...] = ()
    flops: float = 0.0
    operations: float = 0.0

    def __add__(self, other: "ComputeCost") -> "ComputeCost":
        return ComputeCost(
            trained=self.trained + other.trained,
            read=self.read + other.read,
            flops=self.flops + other.flops,
            operations=self.operations + other.operations,
        )

    def total_flops(self, task: Task) -> float:
        """Every FLOP of it, a multiply-add counted as two."""
        trained = sum(part.flops(task) for part in self.trained)
        return trained + sum(part.flops(task) for part in self.read) + self.flops


def compute_seconds(cost: ComputeCost, task: Task, device: DeviceClass) -> float:
    """Simulated compute seconds of the work on such a device."""
    seconds = cost.flops / (device.flops_per_s * device.efficiency)
    seconds += cost.operations * device.operation_s
    for part in cost.trained:
        pace = device.pace(part.architecture)
        seconds += part.flops(task) / (device.flops_per_s * pace.training)
        seconds += part.steps * pace.step_s
    for reading in cost.read:
        pace = device.pace(reading.architecture)
        seconds += reading.flops(task) / (device.flops_per_s * pace.inference)
        seconds += reading.passes * pace.pass_s
    return seconds
