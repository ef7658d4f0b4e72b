"""Device classes: what a machine can hold, and which architecture a domain's device runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from graft.core.config import DeviceConfig
from graft.core.records import ModelCard, Task
from graft.core.seeding import stream
from graft.devices.tables import draw_class, read_classes, require_range
from graft.errors import ArchitectureError
from graft.models import network_cost, offered_architectures

# The rest of a device's memory is for its data, its sources and its runtime.
TRAINING_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast one architecture runs on a device.

    ``training`` and ``inference`` are the shares of the device's ``flops_per_s`` that it reaches
    there; ``step_s`` and ``pass_s`` are what a training step and a forward pass take however few
    their rows.
    """

    training: float
    inference: float
    step_s: float = 0.0
    pass_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("training", "inference"):
            require_range(self, name, 1e-9)
        for name in ("step_s", "pass_s"):
            require_range(self, name, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceClass:
    """A kind of machine; ``source`` says where its figures come from.

    ``efficiency`` is the share of ``flops_per_s`` that networks reach (ours, unless measured),
    ``architectures`` the pace of those that were measured, and ``operation_s`` what one small
    tensor operation takes besides its arithmetic. ``share`` counts in a file of one's own: how
    many of the domains have such a device, relative to others.
    """

    name: str
    memory_bytes: int
    flops_per_s: float
    source: str
    efficiency: float = 0.1
    operation_s: float = 0.0
    architectures: Mapping[str, Pace] = field(default_factory=dict)
    share: float = 1.0

    def __post_init__(self) -> None:
        for name in ("memory_bytes", "flops_per_s", "efficiency"):
            require_range(self, name, 1e-9)
        for name in ("operation_s", "share"):
            require_range(self, name, 0)

    def pace(self, architecture: str) -> Pace:
        """The architecture's own pace, or the device's in general."""
        general = Pace(training=self.efficiency, inference=self.efficiency)
        return self.architectures.get(architecture, general)


@cache
def device_classes(classes_file: str | None = None) -> dict[str, DeviceClass]:
    """The classes of ``devices.toml``, or of a file with the same keys, by name.

    Raises ConfigError where the file is missing or holds anything else.
    """
    return read_classes(_device_class, "devices.toml", classes_file)


def _device_class(name: str, row: Mapping[str, Any]) -> DeviceClass:
    paces = {key: Pace(**pace) for key, pace in row.get("architectures", {}).items()}
    return DeviceClass(**{**row, "name": name, "architectures": paces})


def assign_device(domain_id: str, seed: int, config: DeviceConfig) -> DeviceClass:
    """The class of a domain's device, drawn from (seed, domain) by the configured shares."""
    classes = device_classes(config.classes_file)
    shares = {
        "microcontroller": config.microcontroller_fraction,
        "phone": config.phone_fraction,
        "gateway": config.gateway_fraction,
    }
    if config.classes_file is not None:
        shares = {name: device.share for name, device in classes.items()}
    return classes[draw_class("device", domain_id, seed, shares)]


def fitting_architectures(
    task: Task, device: DeviceClass, wanted: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The offered architectures whose training fits the device.

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
    """A domain's device and the architecture that runs on it; raises as those who draw them."""
    device = assign_device(domain_id, seed, config)
    return device, assign_architecture(domain_id, seed, task, device, config.architectures)


def affordable_sources(
    cards: Sequence[ModelCard], architecture: str, task: Task, device: DeviceClass
) -> tuple[ModelCard, ...]:
    """As many of the sources, best first, as fit beside the training of the device's own model.

    Raises ArchitectureError where not even the first fits.
    """
    room = device.memory_bytes - network_cost(architecture, task).training_memory_bytes
    kept: list[ModelCard] = []
    for card in cards:
        room -= card.payload_bytes
        if room < 0:
            break
        kept.append(card)
    if cards and not kept:
        raise ArchitectureError(
            f"memory of {device.name}: {architecture} and one source of "
            f"{cards[0].payload_bytes} bytes need more than {device.memory_bytes} bytes"
        )
    return tuple(kept)
