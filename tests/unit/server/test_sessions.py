"""A device that attends: orders through the mailbox and the depot, one call each."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from graft_client.depot_client import GrpcLink, open_channel, open_deployed_channel
from graft_server.deployment.authority import create_authority
from graft_server.depot.server import DepotServer, folder_credentials
from graft_server.flower.mail import ATTEND, Arrival, SessionMail
from graft_server.mailbox import Mailbox
from graft_server.model_store import DirectoryStore

from graft.errors import PayloadLimitError, TransportError
from graft.wire.messages.codec import MESSAGE_RECORD, MESSAGE_SESSION
from graft.wire.stubs import depot_pb2 as pb

LARGE = bytes(range(256)) * 8_000  # of several pieces


class Flower:
    """A Grid that notes what it is given; ``replies`` are handed out once."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.replies: list[Message] = []

    def get_node_ids(self) -> list[int]:
        return [7]

    def push_messages(self, messages: list[Message]) -> list[str]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self.sent)}"
            self.sent.append(message)
        return [self.sent[-1].metadata.message_id]

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        ready = [r for r in self.replies if r.metadata.reply_to_message_id in set(message_ids)]
        self.replies = [r for r in self.replies if r not in ready]
        return ready

    def session(self) -> str:
        name = self.sent[-1].content.config_records[MESSAGE_RECORD][MESSAGE_SESSION]
        assert isinstance(name, bytes)
        return name.decode()


@pytest.fixture(autouse=True)
def a_run_of_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path / "mailbox")


@pytest.fixture
def link(tmp_path: Path, mailbox: Mailbox) -> Iterator[GrpcLink]:
    store = DirectoryStore(tmp_path / "store", shapes_of=lambda architecture: {"w": (2,)})
    with (
        DepotServer(store, "127.0.0.1:0", insecure=True, mailbox=mailbox) as depot,
        open_channel(f"127.0.0.1:{depot.port}", insecure=True) as channel,
    ):
        yield GrpcLink(channel)


def sent(mail: SessionMail, body: bytes) -> str:
    message = mail.send("ann", 7, "train.learn", {"body": body})
    assert message is not None
    return message.message_id


def received(mail: SessionMail, *message_ids: str) -> Arrival:
    until_s = time.monotonic() + 10
    while not (found := list(mail.receive(message_ids))) and time.monotonic() < until_s:
        time.sleep(0.01)
    (arrival,) = found
    return arrival


def test_one_message_of_flower_serves_a_domains_whole_round(
    mailbox: Mailbox, link: GrpcLink
) -> None:
    flower = Flower()
    mail = SessionMail(flower, mailbox)  # type: ignore[arg-type]
    first, second = sent(mail, b"one"), sent(mail, LARGE)
    assert [m.metadata.message_type for m in flower.sent] == [ATTEND]
    order = link.attend(flower.session(), "ann", "", {})
    assert (order.order_id, dict(order.parts)) == (first, {"body": b"one"})
    order = link.attend(flower.session(), "ann", first, {"body": b"an answer"})
    assert (order.order_id, dict(order.parts)) == (second, {"body": LARGE})
    answered = received(mail, first, second)
    assert (answered.message_id, answered.parts) == (first, {"body": b"an answer"})
    opening = answered.wire_bytes
    held: list[pb.Order] = []
    waiting = threading.Thread(
        target=lambda: held.append(link.attend(flower.session(), "ann", second, {"body": LARGE}))
    )
    waiting.start()
    answered = received(mail, second)
    assert (answered.message_id, answered.parts) == (second, {"body": LARGE})
    later = answered.wire_bytes
    assert opening is not None
    assert later is not None
    assert opening > 15_000
    assert len(LARGE) < later < 1.1 * len(LARGE)
    third = sent(mail, b"three")  # the depot tells the device that waits, at once
    waiting.join(5)
    assert [order.order_id for order in held] == [third]
    mailbox.close()
    assert link.attend(flower.session(), "ann", third, {"body": b"late"}).is_over


def test_a_lost_device_is_told_by_flower_and_asked_again(mailbox: Mailbox) -> None:
    flower = Flower()
    mail = SessionMail(flower, mailbox)  # type: ignore[arg-type]
    first, second = sent(mail, b"one"), sent(mail, b"two")
    session = flower.session()
    mailbox.deliver(
        "ann", session, first, pb.Answer(parts={"body": b"in time"}).SerializeToString()
    )
    error = Message(Error(code=8, reason="its ClientApp is slow"), reply_to=flower.sent[0])
    flower.replies.append(error)
    answer, lost = mail.receive([first, second])
    assert (answer.message_id, answer.parts, answer.error) == (first, {"body": b"in time"}, None)
    assert (lost.message_id, lost.error) == (second, (8, "its ClientApp is slow"))
    third = sent(mail, b"two again")
    assert (len(flower.sent), flower.session()) == (2, session)
    # The slow one comes after all: it gets the order as it was sent the second time.
    mailbox.deliver("ann", session, second, b"too late")
    assert mailbox.wait("ann", session, 0.0, lambda: True).order_id == third
    assert list(mail.receive([third])) == []
    mailbox.deliver(
        "ann", session, third, pb.Answer(parts={"body": b"at last"}).SerializeToString()
    )
    assert received(mail, third).parts == {"body": b"at last"}


def test_a_server_that_is_started_again_ends_the_sessions_before(mailbox: Mailbox) -> None:
    flower = Flower()
    order = sent(SessionMail(flower, mailbox), b"one")  # type: ignore[arg-type]
    before = flower.session()
    again = SessionMail(flower, mailbox)  # type: ignore[arg-type]
    assert sent(again, b"one") == order
    assert mailbox.wait("ann", before, 0.0, lambda: True).is_over
    mailbox.deliver("ann", before, order, b"of the session before")
    assert list(again.receive([order])) == []


def test_a_clientapp_that_ends_without_an_answer_has_lost_its_orders(mailbox: Mailbox) -> None:
    flower = Flower()
    mail = SessionMail(flower, mailbox)  # type: ignore[arg-type]
    order = sent(mail, b"one")
    reply = Message(RecordDict({MESSAGE_RECORD: ConfigRecord({})}), reply_to=flower.sent[0])
    flower.replies.append(reply)
    (lost,) = mail.receive([order])
    assert lost.error is not None
    assert "ClientApp ended" in lost.error[1]


def test_what_is_no_answer_is_taken_for_an_empty_one(mailbox: Mailbox) -> None:
    flower = Flower()
    mail = SessionMail(flower, mailbox)  # type: ignore[arg-type]
    order = sent(mail, b"one")
    mailbox.deliver("ann", flower.session(), order, b"\xff\xff\xff")
    assert received(mail, order).parts == {}


def test_a_newer_call_of_a_device_ends_its_older_one(mailbox: Mailbox, link: GrpcLink) -> None:
    mailbox.open("ann", "s")
    held: list[pb.Order] = []
    waiting = [
        threading.Thread(target=lambda: held.append(link.attend("s", "ann", "", {})))
        for _ in range(3)
    ]
    for each in waiting:
        each.start()
        time.sleep(0.2)
    waiting[0].join(5)
    waiting[1].join(5)
    assert [order.order_id for order in held] == ["", ""]
    assert waiting[2].is_alive()
    mailbox.close()
    waiting[2].join(5)
    assert held[2].is_over


def test_a_device_gets_the_orders_of_its_certificate_and_no_others(
    tmp_path: Path, mailbox: Mailbox
) -> None:
    authority = create_authority(tmp_path)
    authority.server_identity(["127.0.0.1"]).write(tmp_path)
    (tmp_path / "ann").mkdir()
    authority.device_identity("ann").write(tmp_path / "ann")
    (tmp_path / "ann" / "ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
    store = DirectoryStore(tmp_path / "store", shapes_of=lambda architecture: {"w": (2,)})
    for domain_id in ("ann", "bob"):
        mailbox.open(domain_id, "s")
        mailbox.post(domain_id, "00000001", {"body": domain_id.encode()})
    with (
        DepotServer(
            store, "127.0.0.1:0", credentials=folder_credentials(tmp_path), mailbox=mailbox,
            open_order=lambda device: None,
        ) as depot,
        open_deployed_channel(
            f"127.0.0.1:{depot.port}", tmp_path / "ann", insecure=False
        ) as channel,
    ):  # fmt: skip
        order = GrpcLink(channel).attend("s", "bob", "", {})
    assert dict(order.parts) == {"body": b"ann"}


def test_hostile_headers_are_refused(link: GrpcLink, mailbox: Mailbox) -> None:
    mailbox.open("ann", "s")
    for domain_id, answered in (("../ann", ""), ("ann", "../../x"), ("ann", "1")):
        with pytest.raises(PayloadLimitError):
            link.attend("s", domain_id, answered, {"body": b""})
    stub = link._stub
    header = pb.AttendHeader(session="s", answered="00000001", answer_bytes=3, domain="ann")
    for pieces, code in (
        ([b"four"], grpc.StatusCode.INVALID_ARGUMENT),
        ([b"xy"], grpc.StatusCode.DATA_LOSS),
    ):
        chunks = [pb.AttendChunk(header=header), *(pb.AttendChunk(data=each) for each in pieces)]
        with pytest.raises(grpc.RpcError) as refused:
            stub.Attend(iter(chunks), timeout=5)
        assert refused.value.code() == code


def test_without_a_mailbox_nobody_attends(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store", shapes_of=lambda architecture: {"w": (2,)})
    with (
        DepotServer(store, "127.0.0.1:0", insecure=True) as depot,
        open_channel(f"127.0.0.1:{depot.port}", insecure=True) as channel,
        pytest.raises(PayloadLimitError),
    ):
        GrpcLink(channel).attend("s", "ann", "", {})
    with open_channel("127.0.0.1:9", insecure=True) as channel, pytest.raises(TransportError):
        GrpcLink(channel).attend("s", "ann", "", {})
