"""From a configuration to the world it names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from graft.core.config import WorldConfig
from graft.core.seeding import stream
from graft.core.tasks import Task
from graft.data.domain import DomainData, World, inputs_of
from graft.data.folder import FolderWorld
from graft.data.synthetic.digits import DigitsWorld
from graft.data.synthetic.imu import ImuWorld
from graft.data.synthetic.wearables import WearablesWorld
from graft.errors import ConfigError

# The worlds that need no folder.
EMBEDDED: Final = ("imu", "digits", "wearables")


@dataclass(frozen=True, slots=True)
class PartWorld:
    """A World that offers some domains of another."""

    whole: World
    domain_ids: Sequence[str]

    @property
    def task(self) -> Task:
        return self.whole.task

    def person(self, domain_id: str) -> str:
        return self.whole.person(domain_id)

    def inputs(self, domain_id: str) -> tuple[str, ...]:
        return inputs_of(self.whole, domain_id)

    def load(self, domain_id: str) -> DomainData:
        return self.whole.load(domain_id)


def open_world(config: WorldConfig, seed: int) -> World:
    """The world of a configuration, embedded or from a folder.

    Parameters
    ----------
    config
        Where ``max_domains`` is fewer than the world has, the first of an order drawn from the
        seed are offered, so that a smaller part is within a larger one.
    seed
        Of the run.

    Raises
    ------
    ConfigError
        The world cannot have such a size.
    DatasetFormatError
        The folder cannot be opened.
    """
    world = _open_whole(config, seed)
    if config.max_domains is None:
        return world
    if config.max_domains < 2:
        raise ConfigError(f"world.max_domains: got {config.max_domains}, wanted at least 2")
    if config.max_domains >= len(world.domain_ids):
        return world
    order = stream("max-domains", seed).permutation(len(world.domain_ids))
    # In the order of the whole world.
    chosen = np.sort(order[: config.max_domains])
    return PartWorld(world, tuple(world.domain_ids[index] for index in chosen))


def _open_whole(config: WorldConfig, seed: int) -> World:
    if config.kind == "imu":
        return ImuWorld(config.domains, config.windows_per_domain, seed)
    if config.kind == "digits":
        return DigitsWorld(config.domains, config.windows_per_domain, seed)
    if config.kind == "wearables":
        return WearablesWorld(config.domains, config.windows_per_domain, seed)
    return FolderWorld(Path(config.path), config.output)
