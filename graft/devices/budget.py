"""What fits a device's memory: the architecture that it trains, and how many sources beside it."""

from collections.abc import Sequence

from graft.core.config import DeviceConfig
from graft.core.records import ModelCard, Task
from graft.core.seeding import stream
from graft.devices.classes import DeviceClass, assign_device
from graft.errors import ArchitectureError
from graft.models import network_cost, offered_architectures

# The rest of a device's memory is for its data, its sources and its runtime.
TRAINING_SHARE = 0.5


def fitting_architectures(
    task: Task, device: DeviceClass, wanted: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The offered architectures whose training fits half of the device's memory.

    Raises ArchitectureError where none does.
    """
    budget = device.memory_bytes * TRAINING_SHARE
    offered = offered_architectures(task, wanted)
    needs = {name: network_cost(name, task).training_memory_bytes for name in offered}
    fitting = tuple(name for name in offered if needs[name] <= budget)
    if not fitting:
        raise ArchitectureError(
            f"no architecture fits {device.name}: training needs {needs} bytes, "
            f"wanted at most {budget:.0f}"
        )
    return fitting


def assign_architecture(
    domain_id: str, seed: int, task: Task, device: DeviceClass, wanted: tuple[str, ...] = ()
) -> str:
    """The architecture of a domain's device, drawn from (seed, domain) among those that fit."""
    fitting = fitting_architectures(task, device, wanted)
    return str(stream("architecture", seed, domain_id).choice(fitting))


def equip_domain(
    domain_id: str, seed: int, task: Task, config: DeviceConfig
) -> tuple[DeviceClass, str]:
    """A domain's device and the architecture that runs on it.

    Raises ConfigError for a table of classes that cannot be used, ArchitectureError where no
    architecture fits.
    """
    device = assign_device(domain_id, seed, config)
    return device, assign_architecture(domain_id, seed, task, device, config.architectures)


def affordable_sources(
    cards: Sequence[ModelCard], architecture: str, task: Task, device: DeviceClass
) -> tuple[ModelCard, ...]:
    """As many of the sources, best first, as fit beside the training of the device's own model.

    Raises ArchitectureError where not even the first fits.
    """
    free_bytes = device.memory_bytes - network_cost(architecture, task).training_memory_bytes
    fitting: list[ModelCard] = []
    for card in cards:
        free_bytes -= card.payload_bytes
        if free_bytes < 0:
            break
        fitting.append(card)
    if cards and not fitting:
        raise ArchitectureError(
            f"memory of {device.name}: {architecture} and one source of "
            f"{cards[0].payload_bytes} bytes need more than {device.memory_bytes} bytes"
        )
    return tuple(fitting)
