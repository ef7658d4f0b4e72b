"""The two engines by name, and which of their settings a run's folder records."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from graft_server.round_loop import RunSettings

from graft.errors import ConfigError
from graft.models.placement import check_accelerator
from graft_simulation.block.engine import run_block_engine
from graft_simulation.environment import ray_started, usable_workers


class Engine(StrEnum):
    """flower: each domain a node of Flower's simulation. block: many domains a task."""

    FLOWER = "flower"
    BLOCK = "block"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings:
    """How a run is simulated; only ``engine``, ``accelerator`` and ``stacked`` touch its result,
    within rounding."""

    engine: Engine = Engine.FLOWER
    accelerator: str = "cpu"
    stacked: bool = True
    workers: int = 2
    ray_address: str | None = None
    join_timeout_s: float = 120.0
    stall_timeout_s: float = 900.0

    def recorded(self) -> Mapping[str, str | bool]:
        """What ``RunFolder.begin`` records of them: a resumed run needs the same."""
        if self.engine is Engine.FLOWER:
            own = {} if self.accelerator == "cpu" else {"accelerator": self.accelerator}
            return {"name": "flower", **own}
        return {"name": "block", "accelerator": self.accelerator, "stacked": self.stacked}

    def as_recorded(self, recorded: Mapping[str, str | bool]) -> "EngineSettings":
        """These settings with what a run's folder records in their place."""
        return replace(
            self,
            engine=Engine(str(recorded["name"])),
            accelerator=str(recorded.get("accelerator", "cpu")),
            stacked=bool(recorded.get("stacked", True)),
        )


def check_engine(engine: EngineSettings) -> None:
    """Raises ConfigError for what the engine or this machine does not have."""
    if engine.workers < 0:
        raise ConfigError(f"--workers: got {engine.workers}, wanted 0 or more")
    if engine.engine is Engine.FLOWER and engine.ray_address is not None:
        raise ConfigError(f"--ray-address: got {engine.ray_address}, wanted the block engine")
    if engine.ray_address is None:
        check_accelerator(engine.accelerator)


def run_engine(settings: RunSettings, engine: EngineSettings) -> str:
    """Run what is left of the rounds; returns the run's hash.

    Raises what ``run_rounds`` raises; ``check_engine`` first, before a folder is written.
    """
    workers = engine.workers if engine.ray_address else usable_workers(engine.workers)
    if engine.engine is Engine.BLOCK:
        return run_block_engine(
            settings,
            workers=workers,
            ray_address=engine.ray_address,
            accelerator=engine.accelerator,
            stacked=engine.stacked,
        )
    # Flower uses the Ray that is there: one that it started itself would import from the working
    # directory, see ``ray_started``.
    workers = max(workers, 1)
    with ray_started(workers):
        # Flower's simulation is 200 MB of imports that the other engine has no use for.
        from graft_simulation.flower import run_flower_engine

        timeouts = engine.join_timeout_s, engine.stall_timeout_s
        return run_flower_engine(settings, workers, *timeouts, engine.accelerator)
