"""What every way from the server to its domains does: in process, and over Flower's messages."""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest
from fakes import RUN, SIGNER, world_devices, world_store
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from graft_client.app import attach, handle_with
from graft_client.depot_client import GrpcLink, open_channel
from graft_client.sessions import answer_orders
from graft_server.depot.server import DepotServer
from graft_server.flower.edge import EdgeSettings, FlowerEdge
from graft_server.mailbox import Mailbox
from graft_server.model_store import DirectoryStore
from graft_simulation.block.checkpoints import Block, BlockCheckpoints, BlockResult
from graft_simulation.block.edge import BlockEdge, Domains
from graft_simulation.dropout import DropoutEdge, lost_from
from graft_simulation.in_process import LocalEdge
from graft_simulation.simulated_devices import OpenDevice

from graft.core.config import ExpansionConfig, NetworkConfig
from graft.core.exchange import (
    Failure,
    ProbeRequest,
    ProfileRequest,
    Request,
    Response,
    TrainRequest,
)
from graft.core.ledger import SERVER, delivered
from graft.core.ports import Edge
from graft.core.records import DomainProfile, LedgerEntry
from graft.data.synthetic.imu import ImuWorld
from graft.errors import DataError, EdgeError, NodesMissingError
from graft.rounds import Device
from graft.wire.messages.codec import (
    MESSAGE_BODY,
    MESSAGE_RECORD,
    MESSAGE_SESSION,
    decode_request,
    decode_response,
    encode_join,
    encode_request,
    encode_response,
)
from graft.wire.messages.replies import ReplyFolder
from graft.wire.messages.request_signature import MESSAGE_SIGNATURE, verify_request

CONFIG = ExpansionConfig()
WORLD = ImuWorld(4, 40, seed=0)
DOMAINS = tuple(WORLD.domain_ids)
STALL_S = 0.3


def profile_requests(*domain_ids: str) -> list[Request]:
    return [ProfileRequest(domain_id=domain_id, round_index=1) for domain_id in domain_ids]


@dataclass
class FakeGrid:
    """Flower's Grid over handlers in this process: one node a domain, numbered from 100.

    What stands in ``lost`` swallows every request, in ``crashed`` answers with Flower's own
    error, in ``refused`` takes no message at all; ``bodies`` answers with these bytes. ``away``
    is gone, as Flower notices, for so many requests.
    Replies are handed out one a look, the latest question first.
    """

    app: ClientApp
    nodes: dict[int, str]
    lost: set[str] = field(default_factory=set)
    crashed: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    bodies: dict[str, bytes] = field(default_factory=dict)
    away: dict[str, int] = field(default_factory=dict)
    late_nodes: int = 0
    waiting: dict[str, Message] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)
    sent: list[bytes] = field(default_factory=list)
    signatures: list[bytes] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)

    def get_node_ids(self) -> Iterable[int]:
        if self.late_nodes:
            self.late_nodes -= 1
            return list(self.nodes)[:1]
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [name for message in messages if (name := self._push(message))]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in reversed(list(message_ids)):
            if message_id in self.waiting:
                return [self.waiting.pop(message_id)]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        ids = self.push_messages(messages)
        return [self.waiting.pop(name) for name in ids if name in self.waiting]

    def _push(self, message: Message) -> str:
        domain_id = self.nodes[message.metadata.dst_node_id]
        joining = message.metadata.message_type == "query.join"
        if domain_id in self.refused and not joining:
            return ""
        name = f"message-{next(self.numbers)}"
        message.metadata.__dict__["_message_id"] = name
        self.sent.append(body_of(message))
        signature = message.content.config_records[MESSAGE_RECORD].get(MESSAGE_SIGNATURE, b"")
        assert isinstance(signature, bytes)
        self.signatures.append(signature)
        if domain_id not in self.lost or joining:
            self.waiting[name] = reply = self._reply(message, domain_id, joining)
            self.answered.append(body_of(reply) if reply.has_content() else b"")
        return name

    def _reply(self, message: Message, domain_id: str, joining: bool) -> Message:
        if domain_id in self.crashed and not joining:
            return Message(Error(code=7, reason="node broke"), reply_to=message)
        if self.away.get(domain_id, 0) and not joining:
            self.away[domain_id] -= 1
            return Message(Error(code=5, reason="node went away"), reply_to=message)
        if domain_id in self.bodies and not joining:
            return reply_with(message, self.bodies[domain_id])
        context = Context(
            run_id=1,
            node_id=message.metadata.dst_node_id,
            node_config={},
            state=RecordDict(),
            run_config={},
        )
        try:
            return self.app(message, context)
        except Exception as error:  # as Flower's own runtime does
            return Message(Error(code=2, reason=str(error)), reply_to=message)


def body_of(message: Message) -> bytes:
    body = message.content.config_records[MESSAGE_RECORD][MESSAGE_BODY]
    assert isinstance(body, bytes)
    return body


def reply_with(message: Message, body: bytes) -> Message:
    return Message(
        RecordDict({MESSAGE_RECORD: ConfigRecord({MESSAGE_BODY: body})}), reply_to=message
    )


def failing(domain_id: str) -> OpenDevice:
    """The world's devices, of which one cannot open its data."""
    devices = world_devices(WORLD, CONFIG, world_store(WORLD), lambda entry: None)

    @contextmanager
    def open_device(request: Request) -> Iterator[Device]:
        if request.domain_id == domain_id:
            raise DataError("data on fire")
        with devices(request) as device:
            yield device

    return open_device


def fake_grid(open_device: OpenDevice | None = None, **habits: object) -> FakeGrid:
    nodes = {100 + place: domain_id for place, domain_id in enumerate(DOMAINS)}
    app = ClientApp()
    attach(
        app,
        lambda context: nodes[context.node_id],
        handle_with(lambda context, request: (open_device or failing(""))(request)),
    )
    return FakeGrid(app=app, nodes=nodes, **habits)  # type: ignore[arg-type]


def flower_edge(
    grid: FakeGrid, entries: list[LedgerEntry], join_timeout_s: float = 5
) -> FlowerEdge:
    settings = EdgeSettings(run=RUN, join_timeout_s=join_timeout_s, stall_timeout_s=STALL_S)
    return FlowerEdge(grid, settings, entries.append, lambda *news: None)  # type: ignore[arg-type]


class AttendingGrid(FakeGrid):
    """A Grid whose nodes attend sessions at a depot, each ClientApp as a thread."""

    address = ""
    apps: list[threading.Thread]

    def _push(self, message: Message) -> str:
        if message.metadata.message_type != "query.attend":
            return super()._push(message)
        node_id = message.metadata.dst_node_id
        session = message.content.config_records[MESSAGE_RECORD][MESSAGE_SESSION]
        assert isinstance(session, bytes)
        app = threading.Thread(target=self._attend, args=[node_id, session.decode()], daemon=True)
        self.apps.append(app)
        app.start()
        return f"message-{next(self.numbers)}"

    def _attend(self, node_id: int, session: str) -> None:
        def answer(parts: Mapping[str, bytes]) -> dict[str, bytes]:
            request = decode_request(parts[MESSAGE_BODY])
            name = "train.learn" if isinstance(request, TrainRequest) else "query.profile"
            content = RecordDict({MESSAGE_RECORD: ConfigRecord(dict(parts))})
            message = Message(content, dst_node_id=node_id, message_type=name)
            return {MESSAGE_BODY: body_of(self._reply(message, self.nodes[node_id], False))}

        with open_channel(self.address, insecure=True) as channel:
            answer_orders(GrpcLink(channel), session, self.nodes[node_id], answer)


@contextmanager
def session_edges(
    entries: list[LedgerEntry], path: Path
) -> Iterator[Callable[[OpenDevice], FlowerEdge]]:
    """Edges whose requests go through a mailbox to a depot."""
    mailbox, apps = Mailbox(path / "mailbox"), list[threading.Thread]()

    def connect(open_device: OpenDevice) -> FlowerEdge:
        plain = fake_grid(open_device)
        grid = AttendingGrid(app=plain.app, nodes=plain.nodes)
        grid.address, grid.apps = f"127.0.0.1:{depot.port}", apps
        nodes = {domain_id: node_id for node_id, domain_id in grid.nodes.items()}
        settings = EdgeSettings(run=RUN, mailbox=mailbox, stall_timeout_s=60.0, nodes=lambda: nodes)
        edge = FlowerEdge(grid, settings, entries.append, lambda *news: None)  # type: ignore[arg-type]
        edge.connect(DOMAINS)
        entries.clear()
        return edge

    store = DirectoryStore(path / "store", shapes_of=lambda architecture: {})
    with DepotServer(store, "127.0.0.1:0", insecure=True, mailbox=mailbox) as depot:
        yield connect
        mailbox.close()
        for app in apps:
            app.join(10)


def block_edge(open_device: OpenDevice, entries: list[LedgerEntry], path: Path) -> BlockEdge:
    """Blocks carried out here, by devices that ``open_device`` makes."""

    def carry(blocks: Sequence[Block]) -> Iterator[tuple[int, BlockResult]]:
        for number, block in reversed(list(enumerate(blocks))):
            local = LocalEdge(RUN, DOMAINS, open_device, lambda entry: None)
            responses = local.ask([decode_request(body) for body in block.requests])
            yield (
                number,
                BlockResult(
                    responses=tuple(map(encode_response, responses)),
                    cached=((),) * len(responses),
                    entries=(),
                ),
            )

    domains = Domains(ids=DOMAINS, architecture_of=lambda domain_id: "cnn-small")
    steps = BlockCheckpoints(path / "steps")
    return BlockEdge(RUN, domains, carry, steps, entries.append, lambda *news: None)


def dropping(edge: Edge, rate: float, entries: list[LedgerEntry]) -> Edge:
    network = NetworkConfig(dropout_rate=rate)
    return DropoutEdge(edge, run=RUN, seed=0, network=network, record=entries.append)


OpenEdge = Callable[[OpenDevice], Edge]


@pytest.fixture(autouse=True)
def task_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages are made inside a task of Flower's."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def entries() -> list[LedgerEntry]:
    return []


@pytest.fixture(params=["local", "flower", "sessions", "block", "local with dropouts"])
def open_edge(
    request: pytest.FixtureRequest, entries: list[LedgerEntry], tmp_path: Path
) -> Iterator[OpenEdge]:
    """The way of each kind."""
    if request.param == "sessions":
        with session_edges(entries, tmp_path) as connect:
            yield connect
    else:
        yield edge_of_kind(request.param, entries, tmp_path)


def edge_of_kind(kind: str, entries: list[LedgerEntry], tmp_path: Path) -> OpenEdge:
    """An edge whose ledger is empty: what joining cost is taken out."""

    def local(open_device: OpenDevice) -> Edge:
        return LocalEdge(RUN, DOMAINS, open_device, entries.append)

    if kind == "local":
        return local
    if kind == "local with dropouts":
        return lambda open_device: dropping(local(open_device), 0.0, entries)
    if kind == "block":
        return lambda open_device: block_edge(open_device, entries, tmp_path)

    def connect(open_device: OpenDevice) -> Edge:
        edge = flower_edge(fake_grid(open_device), entries)
        edge.connect(DOMAINS)
        entries.clear()
        return edge

    return connect


def test_there_is_one_answer_an_order_in_the_order_of_the_orders(open_edge: OpenEdge) -> None:
    asked = [DOMAINS[place] for place in (2, 0, 3, 1, 0)]
    responses = open_edge(failing("")).ask(profile_requests(*asked))
    assert all(isinstance(response, DomainProfile) for response in responses)
    assert [response.domain_id for response in responses] == asked


def test_nothing_asked_is_nothing_answered(open_edge: OpenEdge) -> None:
    assert open_edge(failing("")).ask([]) == []


def test_a_domain_that_breaks_is_a_named_failure_and_the_others_answer(open_edge: OpenEdge) -> None:
    responses = open_edge(failing(DOMAINS[1])).ask(profile_requests(*DOMAINS[:3]))
    assert [type(response) for response in responses] == [DomainProfile, Failure, DomainProfile]
    assert responses[1] == Failure(
        domain_id=DOMAINS[1], round_index=1, method="", error="DataError", message="data on fire"
    )


def test_a_domain_that_nobody_speaks_for_is_a_named_failure(open_edge: OpenEdge) -> None:
    responses = open_edge(failing("")).ask(profile_requests(DOMAINS[0], "stranger"))
    assert isinstance(responses[0], DomainProfile)
    assert isinstance(responses[1], Failure)
    assert (responses[1].domain_id, responses[1].error) == ("stranger", "NodesMissingError")


def test_a_failure_keeps_the_method_it_was_asked_for(open_edge: OpenEdge) -> None:
    probe = ProbeRequest(
        domain_id=DOMAINS[0], round_index=2, method="hat", candidates=(), coarse_distances=()
    )
    learn = TrainRequest(
        domain_id=DOMAINS[0], round_index=3, method="magic", sources=(), register=False
    )
    failures = open_edge(failing(DOMAINS[0])).ask([probe, learn])
    assert [
        (f.round_index, getattr(f, "method", None)) for f in failures if isinstance(f, Failure)
    ] == [(2, "hat"), (3, "magic")]


def test_the_ledger_has_a_row_a_message_of_the_length_of_its_bytes(
    open_edge: OpenEdge, entries: list[LedgerEntry]
) -> None:
    edge = open_edge(failing(DOMAINS[1]))
    requests = profile_requests(*DOMAINS[:2])
    requests.append(
        TrainRequest(domain_id=DOMAINS[2], round_index=3, method="hat", sources=(), register=True)
    )
    responses = edge.ask(requests)
    assert len(entries) == 2 * len(requests)
    for request, response in zip(requests, responses, strict=True):
        down, up = sorted(
            (e for e in entries if e.domain_id == request.domain_id),
            key=lambda e: e.sender != SERVER,
        )
        assert (down.sender, down.receiver) == (SERVER, request.domain_id)
        assert (up.sender, up.receiver) == (request.domain_id, SERVER)
        assert down.payload_bytes == len(encode_request(request))
        assert up.payload_bytes == len(encode_response(response))
        learning = isinstance(request, TrainRequest)
        assert (down.phase, up.phase) == (
            ("ship", "report") if learning else ("profile", "profile")
        )
        for entry in (down, up):
            assert entry.message == ("train.learn" if learning else "query.profile")
            assert entry.method == ("hat" if learning else "")
            assert entry.round_index == request.round_index
            assert entry.wire_bytes >= entry.payload_bytes
            assert entry.wire_source == "modelled"


# --- what only messages between machines can do to an edge ---------------------------------


def connected(
    entries: list[LedgerEntry], open_device: OpenDevice | None = None, **habits: object
) -> tuple[FlowerEdge, FakeGrid]:
    grid = fake_grid(open_device, **habits)
    edge = flower_edge(grid, entries)
    edge.connect(DOMAINS)
    entries.clear()
    grid.sent.clear()
    grid.answered.clear()
    return edge, grid


def test_joining_costs_what_the_names_weigh(entries: list[LedgerEntry]) -> None:
    flower_edge(fake_grid(), entries).connect(DOMAINS)
    assert {entry.phase for entry in entries} == {"join"}
    assert {e.domain_id: e.payload_bytes for e in entries if e.receiver == SERVER} == {
        domain_id: len(encode_join(domain_id)) for domain_id in DOMAINS
    }
    assert [e.payload_bytes for e in entries if e.sender == SERVER] == [0] * len(DOMAINS)
    assert all(entry.wire_bytes > entry.payload_bytes for entry in entries)


def test_nodes_that_come_late_are_waited_for(entries: list[LedgerEntry]) -> None:
    grid = fake_grid(late_nodes=3)
    edge = flower_edge(grid, entries)
    edge.connect(DOMAINS)
    assert isinstance(edge.ask(profile_requests(DOMAINS[-1]))[0], DomainProfile)


def test_nodes_that_stay_away_are_named_in_time(entries: list[LedgerEntry]) -> None:
    started_s = time.monotonic()
    with pytest.raises(NodesMissingError, match=r"4 of 6 .* missing absent, away"):
        flower_edge(fake_grid(), entries, join_timeout_s=0.2).connect([*DOMAINS, "away", "absent"])
    assert time.monotonic() - started_s < 0.2 + 1


def test_two_nodes_for_one_domain_are_refused(entries: list[LedgerEntry]) -> None:
    grid = fake_grid()
    grid.nodes[200] = DOMAINS[0]
    with pytest.raises(EdgeError, match=f"{DOMAINS[0]}: got two nodes"):
        flower_edge(grid, entries).connect(DOMAINS)


def test_a_node_that_joins_with_nonsense_stays_unknown(entries: list[LedgerEntry]) -> None:
    grid = fake_grid()
    grid.nodes[200] = "a domain id may not hold spaces"
    edge = flower_edge(grid, entries)
    edge.connect(DOMAINS)
    assert {entry.domain_id for entry in entries} == set(DOMAINS)


def test_a_node_that_never_answers_is_lost_within_the_stall_timeout(
    entries: list[LedgerEntry],
) -> None:
    edge, grid = connected(entries, lost={DOMAINS[1]})
    started_s = time.monotonic()
    responses = edge.ask(profile_requests(*DOMAINS[:3]))
    assert STALL_S < time.monotonic() - started_s < STALL_S + 2
    assert [type(response) for response in responses] == [DomainProfile, Failure, DomainProfile]
    assert isinstance(responses[1], Failure)
    assert (responses[1].domain_id, responses[1].error) == (DOMAINS[1], "EdgeError")
    assert "no answer" in responses[1].message
    (lost,) = (entry for entry in entries if entry.outcome == "lost")
    assert (lost.sender, lost.payload_bytes) == (DOMAINS[1], 0)
    # The order itself was sent, and is charged.
    down = [e.payload_bytes for e in entries if e.sender == SERVER]
    assert down == [len(body) for body in grid.sent]


def test_what_flower_says_of_a_broken_node_is_in_the_failure(entries: list[LedgerEntry]) -> None:
    edge, _ = connected(entries, crashed={DOMAINS[0]})
    responses = edge.ask(profile_requests(*DOMAINS[:2]))
    assert isinstance(responses[0], Failure)
    assert responses[0].error == "EdgeError"
    assert "error 7: node broke" in responses[0].message
    assert isinstance(responses[1], DomainProfile)
    (up,) = (e for e in entries if e.sender == DOMAINS[0])
    assert (up.outcome, up.payload_bytes) == ("failed", 0)


def test_a_message_that_flower_does_not_take_is_a_named_failure(entries: list[LedgerEntry]) -> None:
    edge, _ = connected(entries, refused={DOMAINS[0]})
    responses = edge.ask(profile_requests(*DOMAINS[:2]))
    assert isinstance(responses[0], Failure)
    assert "refused" in responses[0].message
    assert isinstance(responses[1], DomainProfile)
    assert [e.outcome for e in entries if e.domain_id == DOMAINS[0]] == ["refused"]


def another_domains_response() -> bytes:
    (response,) = LocalEdge(RUN, DOMAINS, failing(""), lambda e: None).ask(
        profile_requests(DOMAINS[3])
    )
    return encode_response(response)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "MessageError"),
        (b"\xff" * 40, "MessageError"),
        (encode_join("ann"), "MessageError"),
        (encode_request(profile_requests(DOMAINS[0])[0]), "MessageError"),
        (another_domains_response(), "EdgeError"),
    ],
)
def test_a_reply_that_is_no_answer_to_the_order_is_a_named_failure_and_is_charged(
    entries: list[LedgerEntry], body: bytes, error: str
) -> None:
    edge, _ = connected(entries, bodies={DOMAINS[0]: body})
    responses = edge.ask(profile_requests(*DOMAINS[:2]))
    assert isinstance(responses[0], Failure)
    assert (responses[0].domain_id, responses[0].error) == (DOMAINS[0], error)
    assert isinstance(responses[1], DomainProfile)
    (up,) = (e for e in entries if e.sender == DOMAINS[0])
    assert (up.outcome, up.payload_bytes) == ("failed", len(body))


def test_a_report_of_another_method_is_refused(entries: list[LedgerEntry]) -> None:
    request = TrainRequest(
        domain_id=DOMAINS[0], round_index=1, method="label-only", sources=(), register=False
    )
    config = replace(CONFIG, training=replace(CONFIG.training, max_steps=1))
    devices = world_devices(WORLD, config, world_store(WORLD), lambda entry: None)
    (report,) = LocalEdge(RUN, DOMAINS, devices, lambda entry: None).ask([request])
    body = encode_response(report)
    edge, _ = connected(entries, bodies={DOMAINS[0]: body})
    for method, refused in (("label-only", False), ("hat", True)):
        (response,) = edge.ask([replace(request, method=method)])
        assert isinstance(response, Failure) == refused


def test_progress_counts_answers(entries: list[LedgerEntry]) -> None:
    grid, news = fake_grid(), []
    settings = EdgeSettings(run=RUN, stall_timeout_s=STALL_S)
    edge = FlowerEdge(grid, settings, entries.append, lambda *told: news.append(told))  # type: ignore[arg-type]
    edge.connect(DOMAINS)
    assert news[-1] == ("join", 4, 4)
    news.clear()
    edge.ask(profile_requests(*DOMAINS))
    assert news == [("profile", done, 4) for done in (0, 1, 2, 3, 4)]


def test_what_is_sent_is_what_was_encoded(entries: list[LedgerEntry]) -> None:
    edge, grid = connected(entries)
    requests: Sequence[Request] = profile_requests(*DOMAINS[:2])
    responses: list[Response] = edge.ask(requests)
    assert [decode_request(body) for body in grid.sent] == list(requests)
    told = {a.domain_id: a for a in map(decode_response, grid.answered)}
    for response in responses:
        assert encode_response(told[response.domain_id]) == encode_response(response)


def test_a_domain_that_drops_out_is_a_named_failure_with_its_messages_in_the_ledger(
    open_edge: OpenEdge, entries: list[LedgerEntry]
) -> None:
    turns = {d: lost_from(d, 1, 0, NetworkConfig(dropout_rate=0.8)) for d in DOMAINS}
    lost = {d for d, turn in turns.items() if turn == 0}
    assert 0 < len(lost) < len(DOMAINS)
    edge = dropping(open_edge(failing("")), 0.8, entries)
    responses = edge.ask(profile_requests(*DOMAINS))
    assert [response.domain_id for response in responses] == list(DOMAINS)
    assert {a.domain_id for a in responses if isinstance(a, Failure)} == lost
    assert all(a.error == "DomainLostError" for a in responses if isinstance(a, Failure))
    for domain_id in DOMAINS:
        down, up = (
            next(e for e in entries if domain_id in (e.sender, e.receiver) and e.sender == sender)
            for sender in (SERVER, domain_id)
        )
        assert (down.outcome, down.payload_bytes > 0) == ("ok", True)
        assert up.outcome == ("lost" if domain_id in lost else "ok")
        assert (up.payload_bytes > 0) == (domain_id not in lost)


def test_who_is_lost_stays_lost_for_the_round(entries: list[LedgerEntry]) -> None:
    network = NetworkConfig(dropout_rate=1.0)
    # Of 90 domains about 30 are lost at each turn, with a deviation of 4.5.
    turns = [lost_from(f"d{number}", 1, 0, network) for number in range(90)]
    assert all(12 <= turns.count(turn) <= 48 for turn in range(3))
    local = LocalEdge(RUN, DOMAINS, failing(""), entries.append)
    learn = [
        TrainRequest(domain_id=d, round_index=1, method="label-only", sources=(), register=False)
        for d in DOMAINS
    ]
    responses = dropping(local, 1.0, entries).ask(learn)
    assert {type(response) for response in responses} == {Failure}


# --- what only the field asks of Flower's edge ----------------------------------------------


def field_edge(grid: FakeGrid, entries: list[LedgerEntry], **terms: object) -> FlowerEdge:
    settings = EdgeSettings(**{"run": RUN, "stall_timeout_s": STALL_S, **terms})  # type: ignore[arg-type]
    return FlowerEdge(grid, settings, entries.append, lambda *news: None)  # type: ignore[arg-type]


def test_a_device_that_comes_back_is_asked_again_and_its_last_try_is_what_counts(
    entries: list[LedgerEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft_server.flower.edge._ASK_AGAIN_S", 0.05)
    grid = fake_grid(away={DOMAINS[0]: 2})
    edge = field_edge(grid, entries, lost_patience_s=60.0)
    edge.connect(DOMAINS)
    entries.clear()
    responses = edge.ask(profile_requests(*DOMAINS[:2]))
    assert [type(response) for response in responses] == [DomainProfile, DomainProfile]
    tries = [
        (e.attempt, e.sender == SERVER, e.outcome) for e in entries if e.domain_id == DOMAINS[0]
    ]
    assert tries == [
        (0, True, "ok"), (0, False, "lost"), (1, True, "ok"), (1, False, "lost"), (2, True, "ok"),
        (2, False, "ok"),
    ]  # fmt: skip
    undisturbed: list[LedgerEntry] = []
    calm = flower_edge(fake_grid(), undisturbed)
    calm.connect(DOMAINS)
    undisturbed.clear()
    calm.ask(profile_requests(*DOMAINS[:2]))
    assert delivered(entries) == delivered(undisturbed)


def test_silent_devices_hold_a_stage_for_their_own_deadline_whatever_others_do(
    entries: list[LedgerEntry],
) -> None:
    grid, settings = fake_grid(lost=set(DOMAINS[:2])), {"stall_timeout_s": math.inf}
    edge = field_edge(grid, entries, answer_s=STALL_S, **settings)
    edge.connect(DOMAINS)
    started_s = time.monotonic()
    responses = edge.ask(profile_requests(*DOMAINS))
    assert STALL_S < time.monotonic() - started_s < STALL_S + 2
    silent = [r for r in responses if isinstance(r, Failure)]
    assert [failure.domain_id for failure in silent] == list(DOMAINS[:2])
    assert all("no answer within" in failure.message for failure in silent)
    assert sum(e.outcome == "lost" for e in entries) == 2


def test_patience_has_an_end(entries: list[LedgerEntry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graft_server.flower.edge._ASK_AGAIN_S", 0.05)
    edge = field_edge(fake_grid(away={DOMAINS[0]: 10**6}), entries, lost_patience_s=0.2)
    edge.connect(DOMAINS)
    (response,) = edge.ask(profile_requests(DOMAINS[0]))
    assert isinstance(response, Failure)
    assert "error 5: node went away" in response.message


def test_what_was_answered_before_a_restart_is_not_asked_again(
    entries: list[LedgerEntry], tmp_path: Path
) -> None:
    asked = []
    for _ in range(2):
        grid = fake_grid()
        edge = field_edge(grid, entries, replies=ReplyFolder(tmp_path))
        edge.connect(DOMAINS)
        entries.clear()
        grid.sent.clear()
        responses = edge.ask(profile_requests(*DOMAINS[:2]))
        assert all(isinstance(response, DomainProfile) for response in responses)
        asked.append((len(grid.sent), delivered(entries)))
    assert asked[0][0] == 2
    assert asked[1] == (0, asked[0][1])


def test_a_failure_is_not_kept(entries: list[LedgerEntry], tmp_path: Path) -> None:
    grid = fake_grid(bodies={DOMAINS[0]: b"nonsense"})
    edge = field_edge(grid, entries, replies=ReplyFolder(tmp_path))
    edge.connect(DOMAINS)
    assert isinstance(edge.ask(profile_requests(DOMAINS[0]))[0], Failure)
    grid.bodies.clear()
    assert isinstance(edge.ask(profile_requests(DOMAINS[0]))[0], DomainProfile)


def test_enrolled_nodes_are_not_asked_who_they_are(entries: list[LedgerEntry]) -> None:
    grid = fake_grid(late_nodes=2)
    enrolled = {domain_id: node_id for node_id, domain_id in grid.nodes.items()} | {"away": 900}
    edge = field_edge(grid, entries, nodes=lambda: enrolled, poll_s=0.01)
    edge.connect(DOMAINS[:2])
    assert (grid.sent, entries) == ([], [])
    responses = edge.ask(profile_requests(DOMAINS[0], DOMAINS[3]))
    # A node that nobody waited for speaks for nobody.
    assert [type(response) for response in responses] == [DomainProfile, Failure]


def test_a_device_that_enrols_while_it_is_waited_for_is_found(entries: list[LedgerEntry]) -> None:
    grid, looks = fake_grid(), itertools.count()

    def enrolled() -> dict[str, int]:
        return (
            {domain_id: node_id for node_id, domain_id in grid.nodes.items()}
            if next(looks) > 2
            else {}
        )

    edge = field_edge(grid, entries, nodes=enrolled, join_timeout_s=20, poll_s=0.01)
    edge.connect(DOMAINS[:2])
    assert isinstance(edge.ask(profile_requests(DOMAINS[0]))[0], DomainProfile)


def test_who_stays_away_fails_alone_where_that_is_wanted(entries: list[LedgerEntry]) -> None:
    edge = field_edge(
        fake_grid(), entries, nodes=lambda: {DOMAINS[0]: 100, "away": 900}, go_on_with=0,
        join_timeout_s=0.2, poll_s=0.01,
    )  # fmt: skip
    edge.connect([DOMAINS[0], "away"])
    responses = edge.ask(profile_requests(DOMAINS[0], "away"))
    assert isinstance(responses[0], DomainProfile)
    assert isinstance(responses[1], Failure)
    assert responses[1].error == "NodesMissingError"


def test_every_order_carries_its_signature(entries: list[LedgerEntry]) -> None:
    grid = fake_grid()
    edge = field_edge(
        grid, entries, sign=lambda body: {MESSAGE_SIGNATURE: SIGNER.sign_request(body)}
    )
    edge.connect(DOMAINS)
    grid.sent.clear()
    grid.signatures.clear()
    edge.ask(profile_requests(*DOMAINS[:2]))
    nonces = {
        verify_request(RUN, body, signature, SIGNER.public_key)
        for body, signature in zip(grid.sent, grid.signatures, strict=True)
    }
    assert len(nonces) == 2
