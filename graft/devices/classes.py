"""Classes of devices and of links, from the shipped tables or a user's own TOML file."""

import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from graft.core.config import DeviceConfig, NetworkConfig
from graft.core.seeding import stream
from graft.core.settings import NonNegative, Positive, build_settings, settings
from graft.errors import ConfigError

Row = TypeVar("Row")


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
    """

    name: str
    memory_bytes: Annotated[int | float, Field(gt=0)]
    flops_per_s: Positive
    source: str
    efficiency: Positive = 0.1
    operation_s: NonNegative = 0.0
    architectures: Mapping[str, Pace] = Field(default_factory=dict)
    share: NonNegative = 1.0

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
    classes = device_classes(config.classes_file)
    shares = {
        "microcontroller": config.microcontroller_fraction,
        "phone": config.phone_fraction,
        "gateway": config.gateway_fraction,
    }
    if config.classes_file is not None:
        shares = {name: device.share for name, device in classes.items()}
    return classes[_draw_class("device", domain_id, seed, shares)]


def assign_link(domain_id: str, seed: int, config: NetworkConfig) -> LinkClass:
    """The link of a domain's device, drawn from (seed, domain) by the configured shares."""
    classes = link_classes(config.classes_file)
    shares = {
        "broadband": config.broadband_fraction,
        "lte": config.lte_fraction,
        "lte-m": config.lte_m_fraction,
        "nb-iot": config.nb_iot_fraction,
    }
    if config.classes_file is not None:
        shares = {name: link.share for name, link in classes.items()}
    return classes[_draw_class("link", domain_id, seed, shares)]


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


def _draw_class(purpose: str, domain_id: str, seed: int, shares: Mapping[str, float]) -> str:
    """A class's name by shares that need not sum to 1."""
    total = sum(shares.values())
    if not total:
        raise ConfigError(f"{purpose} classes: got no share above 0, wanted one or more")
    weights = [share / total for share in shares.values()]
    return str(stream(purpose, seed, domain_id).choice(list(shares), p=weights))
