"""The Python API: what the command does, as functions. ``import graft; graft.simulate(...)``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from graft_server.export import FinishedModel, LoadedModel, find_model, load_model
from graft_server.observability.progress import ProgressFile, RoundProgress
from graft_server.observability.trackers import open_tracker
from graft_server.observability.tracking import tracked
from graft_server.round_loop import OnProgress, RunSettings
from graft_server.run_folder import RunFolder
from graft_simulation.clock.simulated_clock import SimulatedClock
from graft_simulation.engines import Engine, EngineSettings, run_engine
from graft_simulation.environment import caller_restored

from graft.core.config import ExpansionConfig, configure, with_settings
from graft.core.files import AnyPath, open_path, read_table
from graft.core.ports import Tracker
from graft.data.dataset_table import write_dataset
from graft.data.domain import World
from graft.data.folder import write_domain
from graft.data.new_folder import new_folder
from graft.data.worlds import EMBEDDED, open_world
from graft.errors import ConfigError, GraftError
from graft.report import read_run, summarise, summary_dict, write_report

__all__ = ["FinishedModel", "LoadedModel", "Run", "load_model", "open_run", "simulate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run that is over, read from its folder."""

    folder: AnyPath
    hash: str

    @property
    def results(self) -> pa.Table:
        """A row per domain, method and round; ``.to_pandas()``, or ``polars.from_arrow``."""
        return read_table(self.folder / "results.parquet")

    @property
    def ledger(self) -> pa.Table:
        """A row per message and attempt."""
        return read_table(self.folder / "ledger.parquet")

    def summary(self) -> list[dict[str, Any]]:
        """The report's table: a record a method, the main one first."""
        record = read_run(self.folder)
        methods: list[dict[str, Any]] = summary_dict(
            summarise(record.rows, record.ledger, record.config)
        )["methods"]
        return methods

    def report(self) -> AnyPath:
        """Write ``report.html`` into the folder; its path."""
        return write_report(self.folder)

    def model(self, name: str) -> FinishedModel:
        """A domain's finished model, checked; raises ModelMissingError for an unknown name."""
        return find_model(self.folder, name)


def simulate(
    world: str | Path | World = "imu",
    *,
    method: str | None = None,
    comparisons: Sequence[str] | None = None,
    rounds: int | None = None,
    domains: int | None = None,
    gamma: float | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    engine: Literal["flower", "block"] = "flower",
    workers: int = 2,
    track: Sequence[str] = (),
) -> Run:
    """Grow a system, as ``graft simulate`` does, and give the run.

    ``world``: "imu" or "digits" (embedded), a domain folder, or any World, which is written
    into the run folder as one. ``settings``: any key of the configuration, dotted. ``workers``
    0 keeps the block engine within this process. The rest are the command's options.

    Raises GraftError as the command would: ExpansionFailedError where a domain was not served.
    """
    folder = RunFolder(open_path(str(out or f"runs/{datetime.now():%Y%m%d-%H%M%S}")))
    config = configure(
        ExpansionConfig(),
        {**(settings or {}), **({} if comparisons is None else {"comparisons": list(comparisons)})},
        data=None if world in EMBEDDED else _as_folder(world, folder),
        domains=domains,
        rounds=rounds,
        gamma=gamma,
        seed=seed,
        method=method,
    )
    if isinstance(world, str) and world in EMBEDDED:
        config = with_settings(config, {"world.kind": world})
    chosen = EngineSettings(engine=Engine(engine), workers=workers)
    digest = complete_run(folder, config, chosen, is_new=True, track=track)
    return Run(folder=folder.path, hash=digest)


def open_run(folder: str | Path) -> Run:
    """A run by its folder; raises RunError where there is none."""
    path = open_path(str(folder))
    return Run(folder=path, hash=str(read_run(path).run["hash"]))


def complete_run(
    folder: RunFolder,
    config: ExpansionConfig,
    engine: EngineSettings,
    *,
    is_new: bool,
    track: Sequence[str] = (),
    on_progress: OnProgress = lambda _: None,
    begun: Callable[[World], None] = lambda world: None,
) -> str:
    """Run what is left of a run; returns its hash. ``begun`` gets the world once it starts.

    Raises GraftError, after it is written to the folder as the run's end.
    """
    with caller_restored():
        trackers = [open_tracker(text) for text in track]
        return _complete(folder, config, engine, is_new, trackers, on_progress, begun)


def _complete(
    folder: RunFolder,
    config: ExpansionConfig,
    engine: EngineSettings,
    is_new: bool,
    trackers: Sequence[Tracker],
    on_progress: OnProgress,
    begun: Callable[[World], None],
) -> str:
    world = open_world(config.world, config.seed)
    watchers = [on_progress]
    if isinstance(folder.path, Path):  # elsewhere each write is a request, and nobody watches
        watchers.append(ProgressFile(folder.path / "progress.json"))

    def notify_all(now: RoundProgress) -> None:
        for watcher in watchers:
            watcher(now)

    settings = RunSettings(
        config=config,
        world=world,
        folder=folder,
        on_progress=notify_all,
        clock=SimulatedClock(config, world.task),
    )
    if is_new:
        folder.begin(config, world, engine.recorded())
    begun(world)
    try:
        with tracked(trackers, folder.run_id, config) as on_round:
            return run_engine(replace(settings, on_round=on_round), engine)
    except GraftError as error:
        folder.fail(f"{type(error).__name__}: {error}")
        raise


def _as_folder(world: str | Path | World, run: RunFolder) -> Path:
    """The domain folder of a world; one made in Python is written beside the run's own files,
    because workers in other processes read it too."""
    if isinstance(world, str | Path):
        return Path(world)
    if not isinstance(run.path, Path):
        raise ConfigError(f"out: got {run.path}, wanted a folder on this machine for such a world")
    own = run.path / "world"
    with new_folder(own) as folder:
        for domain_id in world.domain_ids:
            write_domain(folder, world.load(domain_id))
        persons = {name: world.person(name) for name in world.domain_ids}
        write_dataset(
            folder,
            world.task,
            channels=[f"channel_{place}" for place in range(world.task.sample_shape[0])],
            rate_hz=None,
            licence="not stated",
            persons={name: person for name, person in persons.items() if name != person},
        )
    return own
