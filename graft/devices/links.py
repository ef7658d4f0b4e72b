"""Link classes: how fast bytes come to a domain's device and leave it."""

from dataclasses import dataclass
from functools import cache

from graft.core.config import NetworkConfig
from graft.devices.tables import draw_class, read_classes, require_range


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkClass:
    """A kind of connection, asymmetric; ``source`` says where its figures come from.

    ``loss`` is the share of what is sent that must be sent again, 0 to 1 exclusive.
    ``share`` counts in a file of one's own: how many of the domains have it, relative to others.
    """

    name: str
    up_bits_per_s: float
    down_bits_per_s: float
    latency_s: float
    loss: float
    source: str
    share: float = 1.0

    def __post_init__(self) -> None:
        for name in ("up_bits_per_s", "down_bits_per_s"):
            require_range(self, name, 1e-3)
        require_range(self, "latency_s", 0)
        require_range(self, "loss", 0, 1)
        require_range(self, "share", 0)


@cache
def link_classes(classes_file: str | None = None) -> dict[str, LinkClass]:
    """The classes of ``links.toml``, or of a file with the same keys, by name.

    Raises ConfigError where the file is missing or holds anything else.
    """
    return read_classes(lambda name, row: LinkClass(name=name, **row), "links.toml", classes_file)


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
    return classes[draw_class("link", domain_id, seed, shares)]
