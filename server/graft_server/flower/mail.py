"""How requests travel to devices and answers back: each as a message of Flower, or in sessions.

Flower starts a process for each message, and a message takes a device some ten calls. In a
deployment one message a round therefore asks a device to attend: its ClientApp stays, connected to
the depot, and gets the round's requests there, one call each. Flower says who is online, starts the
ClientApp, and says when it is lost.
"""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from graft.errors import MessageError
from graft.wire.messages.codec import MESSAGE_RECORD, MESSAGE_SESSION
from graft.wire.overhead import (
    ATTEND_DOWN_BYTES,
    ATTEND_UP_BYTES,
    CONNECTION_DOWN_BYTES,
    CONNECTION_UP_BYTES,
    JOIN_DOWN_BYTES,
    JOIN_UP_BYTES,
    framed_bytes,
    request_bytes,
    response_bytes,
    stream_bytes,
)
from graft_server.mailbox import Mailbox, answer_parts

ATTEND: Final = "query.attend"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A message on its way; ``wire_bytes`` None: those of an exchange of Flower."""

    message_id: str
    wire_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """What came to a message: parts, or Flower's code of an error and its reason."""

    message_id: str
    node_id: int
    parts: Mapping[str, bytes] = field(default_factory=dict)
    error: tuple[int, str] | None = None
    wire_bytes: int | None = None


class Mail(Protocol):
    """A way to the nodes."""

    def online(self) -> set[int]: ...

    def send(
        self, domain_id: str, node_id: int, name: str, parts: Mapping[str, bytes]
    ) -> Sent | None:
        """Send a message of this name; None where it does not go out."""
        ...

    def receive(self, message_ids: Iterable[str]) -> Iterable[Arrival]:
        """What has come to some of these messages."""
        ...


class GridMail:
    """Each message is one of Flower's."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def online(self) -> set[int]:
        return set(self._grid.get_node_ids())

    def send(
        self, domain_id: str, node_id: int, name: str, parts: Mapping[str, bytes]
    ) -> Sent | None:
        content = RecordDict({MESSAGE_RECORD: ConfigRecord(dict(parts))})
        message = Message(content, dst_node_id=node_id, message_type=name)
        sent = [message_id for message_id in self._grid.push_messages([message]) if message_id]
        return Sent(message_id=sent[0]) if sent else None

    def receive(self, message_ids: Iterable[str]) -> Iterable[Arrival]:
        wanted = list(message_ids)
        for reply in self._grid.pull_messages(wanted) if wanted else ():
            has_content = reply.has_content()
            yield Arrival(
                message_id=reply.metadata.reply_to_message_id,
                node_id=reply.metadata.src_node_id,
                parts=_parts(reply) if has_content else {},
                error=None if has_content else (reply.error.code, str(reply.error.reason)),
            )


@dataclass(kw_only=True, slots=True)
class _Session:
    """A domain's ClientApp that attends, or is being started; the ids of its open orders."""

    domain_id: str
    node_id: int
    name: str
    message_id: str = ""  # of the message that asked it to, until Flower says how that ended
    pending: set[str] = field(default_factory=set)
    opening_up_bytes: int = 0  # what its start carried up, charged to the next answer


class SessionMail:
    """Requests go through the mailbox to the depot; Flower's messages only start ClientApps.

    A domain has one session. Flower may give a ClientApp up that is slow to start; then another is
    started, and whichever comes first attends.
    """

    def __init__(self, grid: Grid, mailbox: Mailbox) -> None:
        self._flower, self._mailbox = GridMail(grid), mailbox
        self._sessions: dict[str, _Session] = {}
        self._count = 0

    def online(self) -> set[int]:
        return self._flower.online()

    def send(
        self, domain_id: str, node_id: int, name: str, parts: Mapping[str, bytes]
    ) -> Sent | None:
        down_bytes = 0
        session = self._sessions.get(domain_id) or self._begin(domain_id, node_id)
        if not session.message_id:
            if not self._call(session):
                return None
            down_bytes = JOIN_DOWN_BYTES + request_bytes(0) + CONNECTION_DOWN_BYTES
        self._count += 1
        order_id = f"{self._count:08d}"
        num_bytes = self._mailbox.post(domain_id, order_id, parts)
        session.pending.add(order_id)
        down_bytes += ATTEND_DOWN_BYTES + stream_bytes(framed_bytes(num_bytes))
        return Sent(message_id=order_id, wire_bytes=down_bytes)

    def receive(self, message_ids: Iterable[str]) -> Iterable[Arrival]:
        wanted = set(message_ids)
        asked = {each.message_id: each for each in self._sessions.values() if each.message_id}
        # Those that ended are seen first: what they had answered is in the mailbox by then.
        ended = list(self._flower.receive(asked))
        for session in self._sessions.values():
            yield from (each for each in self._answers(session) if each.message_id in wanted)
        for reply in ended:
            session = asked[reply.message_id]
            session.message_id = ""
            error = reply.error or (int(ErrorCode.NODE_UNAVAILABLE), "its ClientApp ended")
            for order_id in sorted(session.pending):
                self._mailbox.withdraw(session.domain_id, order_id)
                session.pending.discard(order_id)
                if order_id in wanted:
                    yield Arrival(message_id=order_id, node_id=session.node_id, error=error)

    def _begin(self, domain_id: str, node_id: int) -> _Session:
        session = _Session(domain_id=domain_id, node_id=node_id, name=secrets.token_hex(8))
        self._mailbox.open(domain_id, session.name)
        self._sessions[domain_id] = session
        return session

    def _call(self, session: _Session) -> bool:
        """Have Flower start a ClientApp; False where it takes no message."""
        parts = {MESSAGE_SESSION: session.name.encode()}
        sent = self._flower.send(session.domain_id, session.node_id, ATTEND, parts)
        if sent is None:
            return False
        self._mailbox.call(session.domain_id)
        session.message_id = sent.message_id
        session.opening_up_bytes = JOIN_UP_BYTES + response_bytes(0) + CONNECTION_UP_BYTES
        return True

    def _answers(self, session: _Session) -> Iterable[Arrival]:
        for order_id, answer in self._mailbox.collect(session.domain_id):
            if order_id not in session.pending:
                continue
            session.pending.discard(order_id)
            up_bytes = ATTEND_UP_BYTES + stream_bytes(framed_bytes(len(answer)))
            up_bytes, session.opening_up_bytes = up_bytes + session.opening_up_bytes, 0
            try:
                parts = answer_parts(answer)
            except MessageError:  # it has no signature then, and is refused for that
                parts = {}
            yield Arrival(
                message_id=order_id, node_id=session.node_id, parts=parts, wire_bytes=up_bytes
            )


def _parts(message: Message) -> dict[str, bytes]:
    """The byte strings of a message's record; nothing of one of another kind."""
    record = message.content.config_records.get(MESSAGE_RECORD, ConfigRecord())
    return {key: value for key, value in record.items() if isinstance(value, bytes)}
