"""Device classes: what a machine can hold, and which architecture a domain's device runs."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from graft.config import DeviceConfig
from graft.errors import ArchitectureError
from graft.seeding import stream
from graft.values import ModelCard, Task
from graft.zoo import network_cost, offered_architectures

# The rest of a device's memory is for its data, its sources and its runtime.
TRAINING_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceClass:
    """A kind of machine; ``source`` says where its figures come from."""

    name: str
    memory_bytes: int
    flops_per_s: float
    source: str


def device_classes() -> dict[str, DeviceClass]:
    """The classes of ``devices.toml`` by name."""
    text = resources.files("graft").joinpath("devices.toml").read_text("utf-8")
    return {name: DeviceClass(name=name, **row) for name, row in tomllib.loads(text).items()}


def assign_device(domain_id: str, seed: int, config: DeviceConfig) -> DeviceClass:
    """The class of a domain's device, drawn from (seed, domain) by the configured shares."""
    names = ("microcontroller", "phone", "gateway")
    shares = (config.microcontroller_share, config.phone_share, config.gateway_share)
    name = str(stream("device", seed, domain_id).choice(names, p=shares))
    return device_classes()[name]


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
