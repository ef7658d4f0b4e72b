"""Architectures of other packages, by the entry point group ``graft.architectures``.

Only an architecture's name ever travels, so every machine of a run has the package installed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Literal

from torch import nn

from graft.errors import ConfigError

# A sample's shape -> the network that gives (B, F) features of (B, *shape), and F.
Encoder = Callable[[tuple[int, ...]], tuple[nn.Module, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """An encoder under a name. ``takes`` windows (K, T) or images (K, H, W)."""

    name: str
    takes: Literal["windows", "images"]
    encoder: Encoder


@cache
def installed_architectures() -> tuple[Architecture, ...]:
    """What installed modules list as ARCHITECTURES; raises ConfigError where two share a name."""
    found: dict[tuple[str, str], Architecture] = {}
    for entry in entry_points(group="graft.architectures"):
        for architecture in entry.load().ARCHITECTURES:
            key = (architecture.takes, architecture.name)
            if key in found:
                raise ConfigError(
                    f"architecture {architecture.name!r} for {architecture.takes}: got two, "
                    "wanted one of each name"
                )
            found[key] = architecture
    return tuple(found.values())
