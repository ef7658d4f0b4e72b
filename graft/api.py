"""The Python API: what the command does, as functions. ``import graft; graft.simulate(...)``."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from graft_server.appeals import Appeal, appeal
from graft_server.export import FinishedModel, LoadedModel, find_model, load_model
from graft_server.forgetting import forget as forget_domain
from graft_server.observability.progress import ProgressFile, RoundProgress
from graft_server.observability.trackers import open_tracker, tracked
from graft_server.round_loop import OnProgress, RunSettings
from graft_server.run_folder import RunFolder
from graft_simulation.clock.simulated_clock import SimulatedClock
from graft_simulation.engines import Engine, EngineSettings, check_engine, run_engine
from graft_simulation.environment import caller_restored
from graft_simulation.forecast import check_equipment

from graft.core.config import ExpansionConfig
from graft.core.config_files import configure, with_settings
from graft.core.ending import known_error
from graft.core.files import AnyPath, open_path
from graft.core.forgetting import Forgetting
from graft.core.ports import Tracker
from graft.core.tables import read_table
from graft.data.domain import World
from graft.data.folder import write_world
from graft.data.worlds import EMBEDDED, open_world
from graft.errors import ConfigError, GraftError, StorageError
from graft.methods import Method, add_method, for_output, require_deployable, with_method_sections
from graft.models import Architecture, add_architecture
from graft.report.run import read_run
from graft.report.summary import summarise
from graft.report.tables import summary_dict

__all__ = [
    "FinishedModel",
    "Forgetting",
    "LoadedModel",
    "Run",
    "forget",
    "load_model",
    "open_run",
    "resume",
    "simulate",
]


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
        from graft.report.page.report import write_report  # matplotlib: half a second

        return write_report(self.folder)

    def model(self, name: str) -> FinishedModel:
        """A domain's finished model, checked; raises ModelMissingError for an unknown name."""
        return find_model(self.folder, name)

    def appeal(self, domain_id: str) -> Appeal:
        """Check a reported domain's models again; without a fault its reports are cleared."""
        return appeal(RunFolder(self.folder), domain_id)


def simulate(
    world: str | Path | World = "imu",
    *,
    method: str | Method | None = None,
    comparisons: Sequence[str | Method] | None = None,
    rounds: int | None = None,
    domains: int | None = None,
    gamma: float | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    engine: Literal["flower", "block"] = "flower",
    workers: int = 2,
    track: Sequence[str | Tracker] = (),
    architectures: Sequence[str | Architecture] = (),
    accelerator: str = "cpu",
) -> Run:
    """Grow a system, as ``graft simulate`` does.

    Parameters
    ----------
    world : str, Path or World
        "imu", "digits" or "wearables" (embedded), a domain folder, or any World, which is
        written into the run folder as one.
    method, comparisons : str or Method, and a sequence of them
        The method whose models join the catalogue, and those that it is compared with: a name,
        a reference "package.module:attribute", or a ``Method`` of a script or notebook.
    rounds, domains, gamma, seed : optional
        Rounds of target domains, number of domains, labelled fraction (0 to 1), random seed.
    settings : mapping, optional
        Any key of the configuration, dotted: ``{"training.max_steps": 60}``.
    out : str or Path, optional
        The run folder, also a URL that fsspec knows; by default ``runs/<date>-<time>``.
    engine : {"flower", "block"}
        Each domain a node of Flower's simulation, or many domains a task, for scale.
    workers : int
        Worker processes; 0 runs the block engine in this process. It never changes the result.
    track : sequence of str or Tracker
        Where the figures of each round go besides: "tensorboard=FOLDER", or any ``Tracker``.
    architectures : sequence of str or Architecture
        What the domains' devices draw their architectures from (``devices.architectures``): names,
        references, or an ``Architecture`` of a script or notebook.
    accelerator : str
        The torch device that networks compute on, as "cuda".

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    ConfigError
        For a key, value, method or architecture that cannot be used.
    ExpansionFailedError
        Where a domain was not served; the run folder holds the rest.

    Examples
    --------
    >>> import graft
    >>> run = graft.simulate(
    ...     "imu", method="label-only", comparisons=[], domains=6, rounds=1,
    ...     settings={"world.windows_per_domain": 40, "training.max_steps": 2},
    ...     engine="block", workers=0, out="runs/example",
    ... )
    >>> run.results.num_rows  # 2 initial and 4 target domains
    6
    """
    folder = RunFolder(open_path(str(out or f"runs/{datetime.now():%Y%m%d-%H%M%S}")))
    changes = dict(settings or {})
    if comparisons is not None:
        changes["comparisons"] = [_method_name(each) for each in comparisons]
    if architectures:
        changes["devices.architectures"] = [_architecture_name(each) for each in architectures]
    config = configure(
        ExpansionConfig(),
        changes,
        data=None if world in EMBEDDED else _as_folder(world, folder),
        domains=domains,
        rounds=rounds,
        gamma=gamma,
        seed=seed,
        method=None if method is None else _method_name(method),
    )
    if isinstance(world, str) and world in EMBEDDED:
        config = with_settings(config, {"world.kind": world})
    chosen = EngineSettings(engine=Engine(engine), workers=workers, accelerator=accelerator)
    digest = complete_run(folder, config, chosen, is_new=True, track=track)
    return Run(folder=folder.path, hash=digest)


def resume(
    folder: str | Path,
    *,
    methods: Sequence[Method] = (),
    workers: int = 2,
    track: Sequence[str | Tracker] = (),
) -> Run:
    """Run what is left of an interrupted run, as ``graft simulate --resume`` does.

    Parameters
    ----------
    folder : str or Path
        The run folder; it has the configuration and the engine.
    methods : sequence of Method
        The run's methods that a script or notebook made.
    workers, track
        As of ``simulate``.

    Raises
    ------
    RunError
        Where there is no run.
    ConfigError
        For a method that is not known here.
    """
    for method in methods:
        add_method(method)
    run_folder = RunFolder(open_path(str(folder)))
    engine = EngineSettings(workers=workers).as_recorded(run_folder.read_engine())
    digest = complete_run(run_folder, run_folder.read_config(), engine, is_new=False, track=track)
    return Run(folder=run_folder.path, hash=digest)


def forget(
    folder: str | Path,
    domain: str,
    *,
    descendants: Literal["keep", "quarantine", "retrain"] | None = None,
) -> Forgetting:
    """Forget a domain of a run that is not running, as ``graft forget`` does.

    Its models leave the catalogue and the store, its profile and results the tables of every
    round. No restart, copy of the models or repeated response brings one of them back.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    domain : str
        The domain's id.
    descendants : {"keep", "quarantine", "retrain"}, optional
        What happens to models that learned from it: they stay; they stay and are no sources any
        more; or ``resume`` trains them again without it. By default ``forget.descendants`` of the
        run's configuration.

    Returns
    -------
    Forgetting
        The signed record, which stays in the folder's ``forgotten/``.

    Raises
    ------
    RunError
        Where there is no run, it is running, or there is no such domain in it.

    Examples
    --------
    >>> import graft
    >>> record = graft.forget("runs/example", "user-000001", descendants="quarantine")
    >>> record.reason, record.domain_id
    ('forgotten', 'user-000001')
    """
    run = RunFolder(open_path(str(folder)))
    config = run.read_config()
    known = open_world(config.world, config.seed).domain_ids
    return forget_domain(run, domain, descendants or config.forget.descendants, known=known)


def _method_name(method: str | Method) -> str:
    """The name of a method; a Method object is known in this process from now on."""
    if isinstance(method, str):
        return method
    add_method(method)
    return method.name


def _architecture_name(architecture: str | Architecture) -> str:
    """The name of an architecture; an object is known in this process from now on."""
    if isinstance(architecture, str):
        return architecture
    add_architecture(architecture)
    return architecture.name


def open_run(folder: str | Path) -> Run:
    """A finished run.

    Parameters
    ----------
    folder : str or Path
        Its run folder, also a URL that fsspec knows.

    Raises
    ------
    RunError
        Where there is no run.

    Examples
    --------
    >>> run = graft.open_run("runs/example")
    >>> [each["method"] for each in run.summary()]
    ['label-only']
    """
    path = open_path(str(folder))
    return Run(folder=path, hash=str(read_run(path).run["hash"]))


def complete_run(
    folder: RunFolder,
    config: ExpansionConfig,
    engine: EngineSettings,
    *,
    is_new: bool,
    track: Sequence[str | Tracker] = (),
    on_progress: OnProgress = lambda _: None,
    begun: Callable[[World], None] = lambda world: None,
) -> str:
    """Run what is left of a run; returns its hash. ``begun`` gets the world once it starts.

    Raises GraftError, after it is written to the folder as the run's end.
    """
    is_begun = not is_new
    with caller_restored():
        try:
            check_engine(engine)
            trackers = [open_tracker(each) if isinstance(each, str) else each for each in track]
            if is_new:
                config = with_method_sections(config)
                require_deployable(config)
            world = open_world(config.world, config.seed)
            if is_new:
                config = for_output(config, world.task)
            watchers = [on_progress]
            if isinstance(folder.path, Path):  # elsewhere each write is a request
                watchers.append(ProgressFile(folder.path / "progress.json"))

            def notify_all(now: RoundProgress) -> None:
                for watcher in watchers:
                    watcher(now)

            check_equipment(world, config)
            settings = RunSettings(
                config=config,
                world=world,
                folder=folder,
                on_progress=notify_all,
                clock=SimulatedClock(config, world.task),
            )
            if is_new:
                folder.begin(config, world, engine.recorded())
            else:
                folder.resume()
            is_begun = True
            begun(world)
            with tracked(trackers, folder.run_id, config) as on_round:
                return run_engine(replace(settings, on_round=on_round), engine)
        except Exception as error:
            ended = _run_error(error, folder.path if is_begun else None)
            if is_begun:  # otherwise a run that is in the folder already is another one
                with suppress(OSError, GraftError):  # on a full disk it stays marked as running
                    folder.fail(f"{type(ended).__name__}: {ended}")
            if ended is error:
                raise
            raise ended from error


def _run_error(error: Exception, begun: AnyPath | None) -> Exception:
    """The error as one of graft's own, where it is one or the system's; and how to go on."""
    known = known_error(error) or error
    if not isinstance(known, StorageError) or begun is None:
        return known
    return StorageError(
        f"{known}; the run is in {begun}: then graft simulate --resume {shlex.quote(str(begun))}"
    )


def _as_folder(world: str | Path | World, run: RunFolder) -> Path:
    """The domain folder of a world; one made in Python is written beside the run's own files,
    because workers in other processes read it too."""
    if isinstance(world, str | Path):
        return Path(world)
    if not isinstance(run.path, Path):
        raise ConfigError(f"out: got {run.path}, wanted a folder on this machine for such a world")
    write_world(run.path / "world", world)
    return run.path / "world"
