"""Domains that are served as they come: overlapping rounds, restarts, failures and pauses.

The loop, the run folder and the devices are real; devices answer in the loop's own process.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path

import pytest
from graft_server.export import find_model
from graft_server.flower.deployed_app import expansion_lock, run_folder
from graft_server.observability.overview import read_overview
from graft_server.round_loop import RunSettings, run_rounds
from graft_server.round_schedule import plan_round, read_rounds
from graft_server.run_folder import RunFolder
from graft_server.run_table import read_run
from graft_server.serving.hold import serving_paused
from graft_server.serving.loop import ServingLoop, Surroundings
from graft_server.serving.planner import read_serving, write_serving
from graft_simulation.in_process import connect_in_process
from small_deployment import make_server

from graft.core.config import (
    DeviceConfig,
    ExpansionConfig,
    GraftConfig,
    SelectionConfig,
    TrainingConfig,
)
from graft.core.exchange import Request, Response, TrainRequest, failure_of
from graft.core.ports import Edge, Progress
from graft.core.records import LedgerEntry
from graft.core.results import ResultRow
from graft.core.tables import read_ledger, read_results
from graft.data import ImuWorld
from graft.errors import EdgeError

WORLD = ImuWorld(6, 40, seed=0)
IDS = tuple(WORLD.domain_ids)
INITIAL, (A, B, C) = IDS[:3], IDS[3:]
CONFIG = ExpansionConfig(
    comparisons=(),
    training=TrainingConfig(max_steps=2, batch_size=8),
    selection=SelectionConfig(num_sources=2),
    devices=DeviceConfig(architectures=("mlp",)),
    graft=GraftConfig(head_steps=2),
)
Gate = Callable[[], None]


class Deployment:
    """A server that serves, devices that come online, and gates in the way of their training."""

    def __init__(self, path: Path, policy: str = "") -> None:
        self.server = make_server(path, *IDS)
        self.folder = run_folder(self.server)
        initial = ", ".join(f'"{name}"' for name in INITIAL)
        (self.server / "serve.toml").write_text(f"initial = [{initial}]\n{policy}")
        self.now_s = 1_000_000.0
        self.online: Callable[[], Sequence[str]] = lambda: INITIAL
        self.gates: dict[str, Gate] = {}
        self.settings = RunSettings(config=CONFIG, world=WORLD, folder=self.folder)
        self.asked: list[tuple[str, int]] = []

    def connect(
        self, domain_id: str, record: Callable[[LedgerEntry], None], progress: Progress
    ) -> AbstractContextManager[Edge]:
        edge = connect_in_process(self.settings)(record, progress)
        return nullcontext(_Gated(edge, self, domain_id))

    def run_planned(self) -> None:
        if not (self.folder.path / "run.toml").exists():
            self.folder.begin(CONFIG, WORLD)
        settings = RunSettings(
            config=CONFIG, world=WORLD, folder=self.folder, planned=read_rounds(self.server)
        )
        run_rounds(connect_in_process(settings), settings)

    def loop(self) -> ServingLoop:
        return ServingLoop(
            Surroundings(
                server=self.server,
                folder=self.folder,
                settings=self.settings,
                online=lambda: self.online(),
                connect=self.connect,
                run_planned=self.run_planned,
                lock=lambda: expansion_lock(self.server),
                clock_s=lambda: self.now_s,
            )
        )

    def begin(self) -> ServingLoop:
        """A loop that has run round 0."""
        loop = self.loop()
        loop.look()
        loop.look()
        assert read_rounds(self.server) == (INITIAL,)
        return loop

    def until(self, rounds: int) -> Gate:
        """A gate that opens once so many rounds are over."""

        def wait() -> None:
            until_s = time.monotonic() + 60
            while self.folder.count_rounds() < rounds:
                assert time.monotonic() < until_s
                time.sleep(0.01)

        return wait


class _Gated:
    def __init__(self, edge: Edge, deployment: Deployment, domain_id: str) -> None:
        self._edge, self._deployment, self._domain_id = edge, deployment, domain_id

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        if any(isinstance(each, TrainRequest) for each in requests):
            self._deployment.asked.append((self._domain_id, requests[0].round_index))
            self._deployment.gates.get(self._domain_id, lambda: None)()
        return self._edge.ask(requests)


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def overlap(deployment: Deployment) -> None:
    """A and B come together, C when B is over; A ends last."""
    loop = deployment.begin()
    over = deployment.folder.count_rounds
    deployment.online = lambda: (*INITIAL, A, B, *((C,) if over() > 1 else ()))
    deployment.gates[A] = deployment.until(3)
    loop.look()


def test_rounds_that_overlap_are_a_sequence_of_whole_rounds(deployment: Deployment) -> None:
    overlap(deployment)
    folder = deployment.folder
    assert read_rounds(deployment.server) == (INITIAL, (B,), (C,), (A,))
    rows = _rows(deployment)
    assert [(row.domain_id, row.round_index) for row in rows[3:]] == [(B, 1), (C, 2), (A, 1)]
    assert not any(row.error for row in rows)
    # What a domain learned from was in the catalogue when it began, which is its round's number.
    saved = {domain: index for index, some in enumerate(((), (B,), (C,), (A,))) for domain in some}
    for row in rows[3:]:
        assert all(saved.get(source, 0) < row.round_index for source in row.source_domains)
    states = [folder.read_state(count) for count in range(1, 5)]
    listed = [[card.model_id for card in state.catalogue] for state in states]
    for before, after in pairwise(listed):
        assert after[:-1] == before
    known = {card.model_id: card for card in states[-1].catalogue}
    assert all(parent in known for card in known.values() for parent in card.parents)
    found = find_model(folder.path, A)
    assert found.row is not None
    assert (found.row.domain_id, found.row.round_index) == (A, 1)
    assert {
        d.domain
        for d in read_overview(deployment.server, superlink=False, depot=False).devices
        if d.model
    } == set(IDS)


def test_the_ledger_has_every_domains_messages_once(deployment: Deployment) -> None:
    overlap(deployment)
    entries = read_ledger(deployment.folder.path / "ledger.parquet")
    for domain_id, index in ((A, 1), (B, 1), (C, 2)):
        own = [entry for entry in entries if entry.domain_id == domain_id]
        assert {entry.round_index for entry in own} == {index}
        messages = [(e.phase, e.message, e.sender) for e in own if not e.message.startswith("pay")]
        assert len(messages) == len(set(messages))
        assert {"profile", "probe", "ship", "report", "register"} <= {e.phase for e in own}
    per_round = [
        read_ledger(deployment.folder.path / "rounds" / str(index) / "ledger.parquet")
        for index in range(4)
    ]
    assert sorted(map(repr, entries)) == sorted(repr(e) for some in per_round for e in some)


def test_one_after_another_they_are_what_planned_rounds_are(tmp_path: Path) -> None:
    served = Deployment(tmp_path / "one", policy="at_once = 1\n")
    loop = served.begin()
    served.online = lambda: (*INITIAL, A, B)
    loop.look()
    planned = RunFolder(tmp_path / "other" / served.folder.run_id)
    planned.begin(CONFIG, WORLD)
    settings = RunSettings(
        config=CONFIG, world=WORLD, folder=planned, planned=(INITIAL, (A,), (B,))
    )
    assert run_rounds(connect_in_process(settings), settings) == _hash(served.folder)


def test_a_server_that_died_goes_on_from_the_same_catalogue(tmp_path: Path) -> None:
    whole, cut = Deployment(tmp_path / "whole"), Deployment(tmp_path / "cut")
    overlap(whole)
    loop = cut.begin()
    over = threading.Event()

    def die() -> None:
        cut.until(2)()
        over.set()
        raise EdgeError("the SuperLink's process is gone")

    cut.online, cut.gates[A] = (lambda: (*INITIAL, A, B)), die
    with pytest.raises(EdgeError):
        loop.look()
    assert over.is_set()
    assert [(each.domain_id, each.base) for each in read_serving(cut.server).open] == [(A, 1)]
    cut.gates[A] = cut.until(3)
    cut.online = lambda: (*INITIAL, A, B, C)
    cut.loop().look()
    assert read_rounds(cut.server) == read_rounds(whole.server)
    assert [row.model_id for row in _rows(cut)] == [row.model_id for row in _rows(whole)]
    assert set(cut.asked) == set(whole.asked)
    assert cut.asked.count((B, 1)) == 1


def test_a_round_that_was_saved_before_the_server_died_is_not_served_again(
    deployment: Deployment,
) -> None:
    loop = deployment.begin()
    deployment.online = lambda: (*INITIAL, A)
    before = read_serving(deployment.server).begin(A, 1, deployment.now_s)
    loop.look()
    write_serving(deployment.server, before)  # the last step of saving was not reached
    deployment.loop().look()
    assert deployment.asked == [(A, 1)]
    assert read_serving(deployment.server).open == ()
    assert read_rounds(deployment.server) == (INITIAL, (A,))


def test_who_failed_is_named_and_served_later(deployment: Deployment) -> None:
    deployment.begin()
    answers = [EdgeError("lost")]
    deployment.online = lambda: (*INITIAL, A)
    connect = deployment.connect

    @contextmanager
    def lost_at_first(domain_id: str, record: object, progress: object) -> Iterator[Edge]:
        with connect(domain_id, record, progress) as edge:
            yield _Losing(edge) if answers and answers.pop() else edge

    deployment.connect = lost_at_first  # type: ignore[method-assign]
    loop = deployment.loop()
    loop.look()
    assert [(row.domain_id, row.error) for row in _rows(deployment)[3:]] == [(A, "EdgeError")]
    assert (
        read_overview(deployment.server, superlink=False, depot=False).devices[3].error
        == "EdgeError"
    )
    loop.look()
    assert deployment.folder.count_rounds() == 2  # its wait is not over
    deployment.now_s += 61
    loop.look()
    rows = _rows(deployment)[3:]
    assert [(row.domain_id, row.round_index, row.error) for row in rows] == [
        (A, 1, "EdgeError"), (A, 2, None),
    ]  # fmt: skip
    assert read_serving(deployment.server).failures == {}


def test_nobody_is_begun_with_in_quiet_hours_or_while_a_command_holds(
    deployment: Deployment,
) -> None:
    loop = deployment.begin()
    deployment.online = lambda: (*INITIAL, A)
    policy = (deployment.server / "serve.toml").read_text()
    (deployment.server / "serve.toml").write_text(policy + 'quiet = ["00:00-24:00"]\n')
    loop.look()
    (deployment.server / "serve.toml").write_text(policy)
    with serving_paused(deployment.server, lambda line: None):
        loop.look()
    assert deployment.folder.count_rounds() == 1
    loop.look()
    assert deployment.folder.count_rounds() == 2


def test_a_round_that_a_command_planned_comes_before_whom_is_there(deployment: Deployment) -> None:
    loop = deployment.begin()
    deployment.online = lambda: (*INITIAL, A, B)
    plan_round(deployment.server, (B, C), deployment.folder.read_state())
    loop.look()
    assert read_rounds(deployment.server)[1:] == ((B, C),)
    loop.look()
    assert read_rounds(deployment.server)[1:] == ((B, C), (A,))


def test_without_initial_domains_a_server_waits_for_a_command(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    (deployment.server / "serve.toml").unlink()
    deployment.online = lambda: IDS
    deployment.loop().look()
    assert read_rounds(deployment.server) == ()


class _Losing:
    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        if any(isinstance(each, TrainRequest) for each in requests):
            return [failure_of(each, EdgeError("node: lost")) for each in requests]
        return self._edge.ask(requests)


def _rows(deployment: Deployment) -> list[ResultRow]:
    """All rows in the order in which the rounds were saved; the run's table has as many."""
    rows = deployment.folder.read_rows(deployment.folder.count_rounds())
    assert len(read_results(deployment.folder.path / "results.parquet")) == len(rows)
    return rows


def _hash(folder: RunFolder) -> str:
    return str(read_run(folder.path)["run"]["hash"])
