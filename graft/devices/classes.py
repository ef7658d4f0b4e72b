"""Classes of devices and of links, from the shipped tables or a user's own TOML file; and what fits
a device's memory: the architecture that it trains, and how many sources beside it."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from graft.core.config import DeviceConfig, NetworkConfig
from graft.core.records import ModelCard
from graft.core.seeding import stream
from graft.core.settings import NonNegative, Positive, build_settings, settings
from graft.core.tasks import Task, with_streams, without_streams
from graft.errors import ArchitectureError, ConfigError
from graft.models import network_cost, offered_architectures

# The rest of a device's memory is for its data, its sources and its runtime.
TRAINING_SHARE = 0.5
Row = TypeVar("Row")
Drawn = TypeVar("Drawn", "DeviceClass", "LinkClass")


@settings()
class Pace:
    """How fast one architecture runs on a device.

    Parameters
    ----------
    training, inference
        Fractions of the device's ``flops_per_s`` that training and forward passes reach.
    step_s, pass_s
        Seconds that a training step and a forward pass take however few their rows.
    """

    training: Positive
    inference: Positive
    step_s: NonNegative = 0.0
    pass_s: NonNegative = 0.0


@settings()
class DeviceClass:
    """A kind of machine.

    Parameters
    ----------
    name
        The table's name.
    memory_bytes
        What the learning process may use.
    flops_per_s
        Float32 operations of one core.
    source
        Where these figures come from.
    efficiency
        Fraction of ``flops_per_s`` that networks reach (estimated, unless measured).
    operation_s
        Seconds that one small tensor operation takes besides its arithmetic.
    architectures
        The pace of those that were measured.
    share
        In a user's own file: how many domains have such a device, relative to other classes.
    down_bytes, up_bytes, device_s
        Its own limits of what serving it once may cost (see ``BudgetConfig``); None: none.
    """

    name: str
    memory_bytes: Annotated[int | float, Field(gt=0)]
    flops_per_s: Positive
    source: str
    efficiency: Positive = 0.1
    operation_s: NonNegative = 0.0
    architectures: Mapping[str, Pace] = Field(default_factory=dict)
    share: NonNegative = 1.0
    down_bytes: Annotated[int | None, Field(ge=1024)] = None
    up_bytes: Annotated[int | None, Field(ge=1024)] = None
    device_s: Annotated[float | None, Field(gt=0)] = None

    def pace(self, architecture: str) -> Pace:
        """The architecture's own pace, or the device's in general."""
        general = Pace(training=self.efficiency, inference=self.efficiency)
        return self.architectures.get(architecture, general)


@settings()
class LinkClass:
    """A kind of connection, asymmetric.

    Parameters
    ----------
    name
        The table's name.
    up_bits_per_s, down_bits_per_s, latency_s
        Of the device's own connection.
    loss
        Fraction of what is sent that must be sent again, 0 to 1 exclusive.
    source
        Where these figures come from.
    share
        In a user's own file: how many domains have it, relative to other classes.
    """

    name: str
    up_bits_per_s: Positive
    down_bits_per_s: Positive
    latency_s: NonNegative
    loss: Annotated[float, Field(ge=0, lt=1)]
    source: str
    share: NonNegative = 1.0


@cache
def device_classes(classes_file: str | None = None) -> dict[str, DeviceClass]:
    """The classes of ``devices.toml``, or of a file with the same keys, by name.

    Raises ConfigError where the file is missing or holds anything else.
    """
    return _read_classes(_device_class, "devices.toml", classes_file)


@cache
def link_classes(classes_file: str | None = None) -> dict[str, LinkClass]:
    """The classes of ``links.toml``, as ``device_classes`` reads ``devices.toml``."""
    return _read_classes(lambda row: build_settings(LinkClass, row), "links.toml", classes_file)


def assign_device(domain_id: str, seed: int, config: DeviceConfig) -> DeviceClass:
    """The class of a domain's device, drawn from (seed, domain) by the configured shares."""
    return _draw_class("device", domain_id, seed, device_classes(config.classes_file), config)


def assign_link(domain_id: str, seed: int, config: NetworkConfig) -> LinkClass:
    """The link of a domain's device, drawn from (seed, domain) by the configured shares."""
    return _draw_class("link", domain_id, seed, link_classes(config.classes_file), config)


def fitting_architectures(
    task: Task, device: DeviceClass, wanted: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The offered architectures whose training fits half of the device's memory.

    Raises ArchitectureError where none does.
    """
    offered = offered_architectures(task, wanted)
    fitting = tuple(name for name in offered if can_train(name, task, device))
    if not fitting:
        needs = {name: network_cost(name, task).training_memory_bytes for name in offered}
        raise ArchitectureError(
            f"no architecture fits {device.name}: training needs {needs} bytes, "
            f"wanted at most {device.memory_bytes * TRAINING_SHARE:.0f}"
        )
    return fitting


def can_train(architecture: str, task: Task, device: DeviceClass) -> bool:
    """Whether an architecture's training fits half of the device's memory."""
    needed = network_cost(architecture, task).training_memory_bytes
    return needed <= device.memory_bytes * TRAINING_SHARE


def assign_architecture(
    domain_id: str,
    seed: int,
    task: Task,
    device: DeviceClass,
    wanted: tuple[str, ...] = (),
    inputs: tuple[str, ...] = (),
) -> str:
    """The architecture of a domain's device, drawn from (seed, domain) among those that fit.

    ``inputs`` are the streams that the domain has, where it lacks some: the name says which.
    """
    lacking = () if set(inputs) >= set(task.input_names) else inputs
    names = []
    for name in wanted or offered_architectures(task.reading(lacking)):
        _, read = without_streams(name)
        if not lacking or set(read or inputs) <= set(inputs):
            names.append(name if read else with_streams(name, lacking))
    if not names:
        raise ArchitectureError(
            f"domain {domain_id}: got the streams {list(inputs)}, wanted those of one of {wanted}"
        )
    fitting = fitting_architectures(task, device, tuple(names))
    return str(stream("architecture", seed, domain_id).choice(fitting))


def equip_domain(
    domain_id: str,
    seed: int,
    task: Task,
    config: DeviceConfig,
    inputs: tuple[str, ...] = (),
    memory_bytes: float | None = None,
) -> tuple[DeviceClass, str]:
    """A domain's device, with at most ``memory_bytes``, and the architecture that runs on it, for
    the streams that it has.

    A device that no architecture fits is drawn again, from the classes that one fits. Raises
    ConfigError for a table of classes that cannot be used, ArchitectureError where there is none.
    """
    wanted = config.architectures

    def architecture_on(device: DeviceClass) -> str:
        return assign_architecture(domain_id, seed, task, device, wanted, inputs)

    def limited(device: DeviceClass) -> DeviceClass:
        if memory_bytes is None or memory_bytes >= device.memory_bytes:
            return device
        return replace(device, memory_bytes=memory_bytes)

    device = limited(assign_device(domain_id, seed, config))
    try:
        return device, architecture_on(device)
    except ArchitectureError:
        fitting = {}
        for name, each in device_classes(config.classes_file).items():
            with suppress(ArchitectureError):
                if _share(each, config) and architecture_on(limited(each)):
                    fitting[name] = each
        if not fitting:
            raise
    device = limited(_draw_class("device that fits", domain_id, seed, fitting, config))
    return device, architecture_on(device)


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


def _device_class(row: dict[str, Any]) -> DeviceClass:
    tables = row.pop("architectures", {})
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise ConfigError(f"architectures: got {tables!r}, wanted a table for each")
    paces = {n: build_settings(Pace, t, f"architectures.{n}.") for n, t in tables.items()}
    return build_settings(DeviceClass, {**row, "architectures": paces})


def _read_classes(
    build: Callable[[dict[str, Any]], Row], shipped: str, classes_file: str | None
) -> dict[str, Row]:
    where = f"classes {classes_file or shipped}"
    try:
        if classes_file is None:
            text = resources.files("graft.devices").joinpath(shipped).read_text("utf-8")
        else:
            text = Path(classes_file).read_text("utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{where}: cannot be read: {error}") from error
    if not table:
        raise ConfigError(f"{where}: got none, wanted at least one")
    classes = {}
    for name, row in table.items():
        if not isinstance(row, dict):
            raise ConfigError(f"{where}: {name}: got {row!r}, wanted a table")
        try:
            classes[name] = build({**row, "name": name})
        except ConfigError as error:
            raise ConfigError(f"{where}: {name}: {error}") from error
    return classes


def _share(each: DeviceClass | LinkClass, config: DeviceConfig | NetworkConfig) -> float:
    """How many domains have such a class: by the user's file, else by the configuration."""
    key = f"{each.name.replace('-', '_')}_fraction"
    return each.share if config.classes_file else float(getattr(config, key))


def _draw_class(
    purpose: str,
    domain_id: str,
    seed: int,
    classes: Mapping[str, Drawn],
    config: DeviceConfig | NetworkConfig,
) -> Drawn:
    """A class by shares that need not sum to 1: of the user's file, else of the configuration."""
    shares = [_share(each, config) for each in classes.values()]
    total = sum(shares)
    if not total:
        raise ConfigError(f"{purpose} classes: got no share above 0, wanted one or more")
    weights = [share / total for share in shares]
    drawn = str(stream(purpose, seed, domain_id).choice(list(classes), p=weights))
    return classes[drawn]
