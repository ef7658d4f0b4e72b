"""The Flower engine: every domain a virtual SuperNode of Flower's Ray simulation.

The message path is the deployment's own; only the models' way is shorter, straight from the
store's folder, with the depot's framing as the modelled wire.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from flwr.supercore import telemetry
from graft_client.app import attach, handle_with
from graft_client.device_factory import domain_of_partition, open_journal
from graft_server.flower.edge import EdgeSettings, connect_flower
from graft_server.model_store import open_store
from graft_server.round_loop import RunSettings, run_rounds

from graft.core.config import ExpansionConfig
from graft.core.exchange import Request
from graft.data.worlds import open_world
from graft.errors import ConfigError, EdgeError, GraftError
from graft.rounds import Device
from graft_simulation.environment import memory_measured, pack_plug_ins
from graft_simulation.full_disk import ended_by_full_disk
from graft_simulation.simulated_devices import ListedCache, simulated_factory


def run_flower_engine(
    settings: RunSettings,
    workers: int,
    join_timeout_s: float = 120.0,
    stall_timeout_s: float = 900.0,
    accelerator: str = "cpu",
) -> str:
    """Run what is left of the rounds on Flower's simulation; returns the run's hash.

    Ray has to be running (``ray_started``), with ``workers`` processors.
    ``join_timeout_s`` and ``stall_timeout_s``: how long to wait for all nodes, and without any
    response. ``accelerator``: the torch device that networks compute on. Raises ConfigError for a
    run folder on another machine, EdgeError where Flower's simulation itself breaks, and what
    ``run_rounds`` raises.
    """
    config, folder = settings.config, settings.folder.path
    if not isinstance(folder, Path):
        raise ConfigError(f"run folder {folder}: Flower's engine wants one on this machine")
    edge = EdgeSettings(
        run=settings.folder.run_id, join_timeout_s=join_timeout_s, stall_timeout_s=stall_timeout_s
    )
    hashes: list[str] = []
    server_app = ServerApp()

    ended = threading.Event()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        live = _LiveGrid(grid, ended)
        connect = connect_flower(cast(Grid, live), edge, settings.world.domain_ids)
        hashes.append(run_rounds(ended_by_full_disk(connect), settings))

    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    with _without_telemetry(), _log_file(folder / "flower.log"), memory_measured() as memory:
        try:
            run_simulation(
                server_app=server_app,
                client_app=_client_app(config, folder, accelerator),
                num_supernodes=len(settings.world.domain_ids),
                backend_config=backend,  # type: ignore[arg-type]
            )
        except GraftError:
            raise
        except (Exception, SystemExit) as error:  # Flower exits where it cannot start
            reason = error.__cause__ or error  # Flower's own words name no reason
            while reason.__cause__ is not None:
                reason = reason.__cause__
            said = " ".join(str(reason).split()) or type(reason).__name__
            raise EdgeError(
                f"Flower's simulation broke: {said}; see {folder / 'flower.log'}"
            ) from error
        finally:
            ended.set()
            settings.folder.note(peak_memory_bytes=memory.peak_bytes, workers=workers)
    if not hashes:
        raise EdgeError("Flower's simulation ended before the run did")
    return hashes[0]


def _client_app(config: ExpansionConfig, folder: Path, accelerator: str) -> ClientApp:
    """The ClientApp of every virtual node; what it closes over travels to each Ray actor."""
    app = ClientApp()
    plug_ins = pack_plug_ins(config)

    def domain_of(context: Context) -> str:
        return domain_of_partition(open_world(config.world, config.seed), context)

    @contextmanager
    def simulated_device(context: Context, request: Request) -> Iterator[Device]:
        plug_ins.install()
        torch.set_num_threads(1)  # in a Ray actor, whose process is the run's own
        world = open_world(config.world, config.seed)
        store = open_store(folder / "models", world.task)
        public_key = (folder / "keys" / "server.pub").read_bytes()
        factory = simulated_factory(
            config, world, folder.name, public_key, store, accelerator=accelerator
        )
        listed = folder / "devices" / f"{request.domain_id}.{request.method}.held"
        with open_journal(folder, request) as journal:
            yield factory.device(request, ListedCache(listed, store), journal.record)

    attach(app, domain_of, handle_with(simulated_device))
    return app


class _LiveGrid:
    """A grid whose every call fails once the simulation behind it has ended.

    Flower leaves the ServerApp's thread to wait for nodes that will never answer.
    """

    def __init__(self, grid: Grid, ended: threading.Event) -> None:
        self._grid, self._ended = grid, ended

    def __getattr__(self, name: str) -> Any:
        if self._ended.is_set():
            raise EdgeError("Flower's simulation has ended")
        return getattr(self._grid, name)


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Flower reads FLWR_TELEMETRY_ENABLED when it is imported, which may be long before the run."""
    before = telemetry.FLWR_TELEMETRY_ENABLED
    telemetry.FLWR_TELEMETRY_ENABLED = "0"
    try:
        yield
    finally:
        telemetry.FLWR_TELEMETRY_ENABLED = before


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Flower's own log goes to the run folder: on the terminal it would drown the run's."""
    logger = logging.getLogger("flwr")
    before = logger.handlers[:], logger.propagate
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers[:], logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before
        handler.close()
