"""The ServerApp of a deployment: it runs the planned rounds that are not over."""

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from graft.core.config_files import read_config
from graft.core.deployment import SERVER_FOLDER, SERVES_ENV, read_server
from graft.core.ending import prepare_app
from graft.core.exchange import GrowRequest, Request, Response, TrainRequest
from graft.core.files import LineFile, lock_file
from graft.core.ports import Edge, Progress
from graft.core.records import LedgerEntry
from graft.core.tasks import Task
from graft.data.dataset_table import read_dataset
from graft.data.domain import DomainData
from graft.errors import ConfigError, DataError, EdgeError, GraftError, RunError
from graft.methods import for_output
from graft.rounds import digest
from graft.wire.messages.replies import ReplyFolder
from graft_server.deployment.enrolment import enrolled
from graft_server.deployment.forgetting import complete_forgetting, enrolments
from graft_server.deployment.order_trust import OrderTrust
from graft_server.flower.edge import EdgeSettings, FlowerEdge, connect_flower
from graft_server.mailbox import open_mailbox
from graft_server.observability.progress import ProgressFile, RoundProgress
from graft_server.round_loop import Connect, RunSettings, run_rounds
from graft_server.round_schedule import read_growth, read_nodes, read_rounds, write_orders
from graft_server.run_folder import RunFolder
from graft_server.serving.hold import SERVING, read_waits
from graft_server.serving.loop import ServingLoop, Surroundings

log = logging.getLogger("graft")
app = ServerApp()

ANSWER_S = 3600.0  # a device that trains is silent for as long as that takes
_LOCK_WAIT_S = 30.0
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrolledWorld:
    """The domains of a deployment as its server knows them: by name, without their data."""

    task: Task
    domain_ids: Sequence[str]

    def person(self, domain_id: str) -> str:
        return domain_id

    def load(self, domain_id: str) -> DomainData:
        raise DataError(f"domain {domain_id}: its data is on its own device")


def run_folder(server: Path) -> RunFolder:
    """The run folder of a deployment."""
    return RunFolder(server / "runs" / read_server(server).run)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What ``graft deploy expand``, or a server that serves, starts through Flower."""
    prepare_app()
    server = Path(os.environ.get(SERVER_FOLDER, ""))
    if not (server / "server.toml").exists():
        raise ConfigError(f"{SERVER_FOLDER}: got {str(server)!r}, wanted a server's folder")
    folder = run_folder(server)
    if os.environ.get(SERVES_ENV):
        _serve(grid, context, server, folder)
    with expansion_lock(server):
        try:
            digest = _expand(grid, context, server, folder)
        except GraftError as error:
            folder.fail(f"{type(error).__name__}: {error}")
            log.error("expansion failed: %s", error)
            raise
    log.info("run %s: hash %s", folder.run_id, digest)


def _serve(grid: Grid, context: Context, server: Path, folder: RunFolder) -> NoReturn:
    """Serve domains as they come, until the SuperLink is gone."""
    parent, signing = os.getppid(), threading.Lock()
    world = _world(server)
    config = for_output(read_config(server / "expansion.toml"), world.task)
    run_settings = RunSettings(config=config, world=world, folder=folder)
    settings = _edge_settings(context, server, folder, round_index=0, signing=signing)

    def online() -> list[str]:
        if os.getppid() != parent:
            raise EdgeError("the SuperLink's process is gone")
        heard = set(grid.get_node_ids())
        return [domain_id for domain_id, node in read_nodes(server).items() if node in heard]

    @contextlib.contextmanager
    def connect(
        domain_id: str, record: Callable[[LedgerEntry], None], progress: Progress
    ) -> Iterator[Edge]:
        replies = ReplyFolder(folder.steps / domain_id)
        edge = FlowerEdge(grid, replace(settings, replies=replies), record, progress)
        edge.connect([domain_id])
        try:
            yield edge
        finally:
            open_mailbox(server).end(domain_id)

    around = Surroundings(
        server=server,
        folder=folder,
        settings=run_settings,
        online=online,
        connect=connect,
        run_planned=lambda: _expand(grid, context, server, folder),
        lock=lambda: expansion_lock(server),
    )
    with lock_file(server / SERVING, str(server), wait_s=_LOCK_WAIT_S):
        ServingLoop(around).run()


def _world(server: Path) -> EnrolledWorld:
    return EnrolledWorld(task=read_dataset(server).task, domain_ids=enrolled(server))


def _edge_settings(
    context: Context,
    server: Path,
    folder: RunFolder,
    *,
    round_index: int,
    signing: AbstractContextManager[object] | None = None,
) -> EdgeSettings:
    """How the devices are asked; ``signing`` is held while an order is signed."""
    task, trust = read_dataset(server).task, None
    if not read_server(server).insecure:
        expansion = (server / "expansion.toml").read_text("utf-8")
        trust = OrderTrust(server, folder, expansion)
    one_at_a_time = signing or contextlib.nullcontext()

    def sign(body: bytes) -> Mapping[str, bytes]:
        with one_at_a_time:
            return trust.sign(body) if trust else {}

    # A server that serves runs what a command has planned, with the command's own waits.
    waits: Mapping[str, object] = context.run_config
    if signing is None:
        waits = read_waits(server) or waits
    return EdgeSettings(
        run=folder.run_id,
        join_timeout_s=float(str(waits["join-timeout-s"])),
        answer_s=float(str(waits.get("answer-s", ANSWER_S))),
        lost_patience_s=float(str(waits["patience-s"])),
        # A system grows from one initial domain, not from none.
        go_on_with=1 if round_index == 0 and signing is None else 0,
        stall_timeout_s=math.inf,  # each answer has its own limit
        poll_s=_POLL_S,
        round_index=round_index,
        sign=sign,
        verify=trust.verify if trust else None,
        replies=ReplyFolder(folder.steps),
        digest=lambda request, response: digest(request, response, task),
        nodes=lambda: read_nodes(server),
        mailbox=open_mailbox(server),
    )


def _expand(grid: Grid, context: Context, server: Path, folder: RunFolder) -> str:
    rounds, world = read_rounds(server), _world(server)
    config = for_output(read_config(server / "expansion.toml"), world.task)
    if (folder.path / "run.toml").exists():
        folder.resume(durable_steps=True)
    else:
        folder.begin(config, world)
    forgotten, state = complete_forgetting(server, folder), folder.read_state()
    finished, refused = state.round_index, forgotten.refused(enrolments(server))
    rounds = (
        *rounds[:finished],
        *(tuple(d for d in arriving if d not in refused) for arriving in rounds[finished:]),
    )
    growing = read_growth(server)
    expected = {d for arriving in rounds[finished:] for d in arriving}
    expected |= {g.domain_id for i, some in growing.items() if i >= finished for g in some}
    expected |= forgotten.asked_again(state)
    settings = _edge_settings(context, server, folder, round_index=finished)
    with (
        contextlib.closing(LineFile(server / "state" / "stages.jsonl")) as stages,
        contextlib.closing(open_mailbox(server)),
    ):
        return run_rounds(
            _with_orders(connect_flower(grid, settings, sorted(expected)), server),
            RunSettings(
                config=config,
                world=world,
                folder=folder,
                planned=rounds,
                growing=growing,
                needs_source=True,
                on_round=lambda index, *_: write_orders(server, index, ()),
                on_progress=_StageTimes(server / "state" / "progress.json", stages),
            ),
        )


def _with_orders(connect: Connect, server: Path) -> Connect:
    """The same way to the domains; the depot learns which of them are asked to register a model."""

    def connect_with_orders(record: Callable[[LedgerEntry], None], progress: Progress) -> Edge:
        return _OrderingEdge(connect(record, progress), server)

    return connect_with_orders


@dataclass(frozen=True, slots=True)
class _OrderingEdge:
    edge: Edge
    server: Path

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        training = [each for each in requests if isinstance(each, TrainRequest | GrowRequest)]
        orders = [each for each in training if each.register]
        if orders:
            write_orders(self.server, orders[0].round_index, [each.domain_id for each in orders])
        return self.edge.ask(requests)


class _StageTimes:
    """Writes how far the round is, and when each of its stages began and ended."""

    def __init__(self, path: Path, stages: LineFile) -> None:
        self._file = ProgressFile(path)
        self._stages = stages
        self._latest: tuple[object, ...] = ()
        self._began_s: dict[tuple[int, str], float] = {}

    def __call__(self, now: RoundProgress) -> None:
        latest = (now.round_index, now.phase, now.done, now.wanted)
        if latest == self._latest:
            return
        self._latest = latest
        now_s, index = time.time(), now.round_index
        self._file(now)
        stage = "learn" if now.phase == "report" else now.phase
        began_s = self._began_s.setdefault((index, stage), now_s)
        if now.done == now.wanted:
            times = {"round_index": index, "stage": stage, "began_s": began_s, "ended_s": now_s}
            self._stages.append(times)


def is_expanding(server: Path) -> bool:
    """Whether a ServerApp runs the folder's rounds."""
    try:
        with lock_file(server / "state" / "expansion.lock", str(server)):
            return False
    except RunError:
        return True


def expansion_lock(server: Path) -> AbstractContextManager[None]:
    """Lock the folder, because two expansions would write the same round; RunError if locked."""
    # A stopped expansion may still be ending.
    return lock_file(server / "state" / "expansion.lock", str(server), wait_s=_LOCK_WAIT_S)
