"""The server's way to its domains through Flower's Grid: bounded waits, every byte metered."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from graft.core.exchange import Failure, Request, Response, failure_of
from graft.core.ports import Progress
from graft.core.records import NO_LIMITS, LedgerEntry, Outcome
from graft.errors import EdgeError, GraftError, MessageError, NodesMissingError
from graft.rounds.admissible import digest_failure
from graft.wire.messages.codec import MESSAGE_BODY, decode_join, encode_request
from graft.wire.messages.replies import MESSAGE_TRANSFERS, Reply, ReplyFolder, decode_transfers
from graft.wire.messages.request_signature import MESSAGE_SIGNATURE, order_digest
from graft_server.flower.mail import Arrival, GridMail, Mail, SessionMail
from graft_server.mailbox import Mailbox
from graft_server.request_log import (
    exchange_entry,
    join_entries,
    message_name,
    response_phase,
    response_to,
)
from graft_server.round_loop import Connect

_LATECOMER_S = 1.0
_POLL_S_PER_MESSAGE = 0.002
_ASK_AGAIN_S = 5.0
# Flower's codes for a node, or its ClientApp's process, that went away during a request.
_LOST = {
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.CLIENT_APP_CRASHED,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A device's reply as it came, and its signature."""

    reply: Reply
    signature: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeSettings:
    """Time limits of the exchange, in seconds, and what a deployment needs besides."""

    run: str
    join_timeout_s: float = 120.0  # how long to wait for all nodes
    # Nodes that stay away fail by themselves, not the whole run; where so many are there.
    go_on_with: int | None = None
    stall_timeout_s: float = 900.0  # without any response the rest then count as lost
    answer_s: float = math.inf  # how long after it was sent a request may be unanswered
    lost_patience_s: float = 0.0  # how long after the first try a lost device is asked again
    poll_s: float = 0.05
    round_index: int = 0  # which joining is charged to
    # Gives what an encoded request travels with, by which its device accepts it.
    sign: Callable[[bytes], Mapping[str, bytes]] = lambda body: {}
    verify: Callable[[str, bytes, "Answer"], None] | None = None  # a domain, an order's digest
    replies: ReplyFolder | None = None  # saves responses across a restart
    # Digests a response, before it is saved.
    digest: Callable[[Request, Response], Response] = lambda request, response: response
    nodes: Callable[[], Mapping[str, int]] | None = None  # node ids by domain, known by enrolment
    mailbox: Mailbox | None = None  # requests go through it, not as messages of Flower


def connect_flower(grid: Grid, settings: EdgeSettings, domain_ids: Sequence[str]) -> Connect:
    """The way through a Grid, once every domain has a node (see ``FlowerEdge.connect``)."""

    def connect(record: Callable[[LedgerEntry], None], progress: Progress) -> FlowerEdge:
        edge = FlowerEdge(grid, settings, record, progress)
        edge.connect(domain_ids)
        return edge

    return connect


class FlowerEdge:
    """``Edge`` over Flower. ``record`` gets one ledger entry a message; ``progress`` gets
    (phase, answers so far, answers wanted)."""

    def __init__(
        self,
        grid: Grid,
        settings: EdgeSettings,
        record: Callable[[LedgerEntry], None],
        progress: Progress,
    ) -> None:
        mailbox = settings.mailbox
        self._mail: Mail = SessionMail(grid, mailbox) if mailbox else GridMail(grid)
        self._settings = settings
        self._record = record
        self._progress = progress
        self._nodes: dict[str, int] = {}

    def connect(self, expected: Sequence[str]) -> None:
        """Wait until every expected domain has a node that answered.

        Raises NodesMissingError, naming what is missing, after ``join_timeout_s``, unless the
        settings say to go on without.
        """
        deadline_s = time.monotonic() + self._settings.join_timeout_s
        wanted, asked, pending = set(expected), set[int](), set[str]()
        complete_s: float | None = None
        while True:
            missing = sorted(wanted - set(self._nodes))
            if not missing:
                # Time for a second node of a domain to answer, but no wait for silent ones.
                complete_s = complete_s or time.monotonic()
                if not pending or time.monotonic() > complete_s + _LATECOMER_S:
                    return
            elif time.monotonic() > deadline_s:
                enough = self._settings.go_on_with
                if enough is not None and len(wanted) - len(missing) >= enough:
                    return
                raise NodesMissingError(
                    f"nodes: got {len(wanted) - len(missing)} of {len(wanted)} within "
                    f"{self._settings.join_timeout_s:.0f} s; missing {', '.join(missing[:5])}"
                )
            # At the start the list of nodes is short or empty, and one that never answers
            # must not delay the others: only nodes that answered count.
            online = self._mail.online()
            enrolled = self._settings.nodes
            for domain_id, node_id in (enrolled() if enrolled else {}).items():
                if domain_id in wanted and node_id in online:
                    self._nodes[domain_id] = node_id
            fresh = sorted(online - asked) if enrolled is None else []
            asked.update(fresh)
            for node_id in fresh:
                if sent := self._mail.send("", node_id, "query.join", {MESSAGE_BODY: b""}):
                    pending.add(sent.message_id)
            for arrival in self._mail.receive(pending) if pending else ():
                pending.remove(arrival.message_id)
                self._add_node(arrival)
            self._progress("join", len(wanted & set(self._nodes)), len(wanted))
            time.sleep(self._settings.poll_s + _POLL_S_PER_MESSAGE * len(pending))

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        """See ``Edge.ask``: one response a request, in order; what fails is a ``Failure``."""
        exchanges = [
            _Exchange(request=request, body=encode_request(request)) for request in requests
        ]
        if requests:  # long work is visible from its start
            self._progress(response_phase(requests[0]), 0, len(requests))
        for exchange in exchanges:
            self._recall(exchange)
        pending: dict[str, _Exchange] = {}
        last_s = time.monotonic()
        done = sum(exchange.response is not None for exchange in exchanges)
        while True:
            for exchange in exchanges:
                is_due = exchange.response is None and exchange.due_s <= time.monotonic()
                if is_due and (message_id := self._send(exchange)):
                    pending[message_id] = exchange
            for arrival in self._mail.receive(pending) if pending else ():
                exchange = pending.pop(arrival.message_id)
                if exchange.response is not None:
                    continue  # it came too late
                self._receive(exchange, arrival)
                if exchange.response is not None:
                    last_s, done = time.monotonic(), done + 1
                    self._progress(response_phase(exchange.request), done, len(requests))
            self._end_silent(exchanges)
            waited_s = time.monotonic() - last_s
            if waited_s > self._settings.stall_timeout_s or all(e.response for e in exchanges):
                break
            # Each look costs Flower's store a scan of what is pending.
            time.sleep(self._settings.poll_s + _POLL_S_PER_MESSAGE * len(pending))
        for exchange in exchanges:
            if exchange.response is None:
                self._give_up(exchange, "while nothing came for", self._settings.stall_timeout_s)
        return [exchange.response for exchange in exchanges if exchange.response is not None]

    def _recall(self, exchange: "_Exchange") -> None:
        """Take the response of before a restart."""
        folder = self._settings.replies
        reply = folder.load(exchange.body) if folder else None
        if reply is not None:
            self._meter(exchange, len(exchange.body), down=True)
            self._take(exchange, reply, measured_s=None)

    def _send(self, exchange: "_Exchange") -> str:
        """Send a request; gives the message's id, "" where it does not go out."""
        request, body = exchange.request, exchange.body
        if request.domain_id not in self._nodes:
            error = NodesMissingError(f"domain {request.domain_id}: no node speaks for it")
            exchange.response = failure_of(request, error)
            return ""
        parts = {MESSAGE_BODY: body, **self._settings.sign(body)}
        node_id, name = self._nodes[request.domain_id], message_name(request)
        sent = self._mail.send(request.domain_id, node_id, name, parts)
        now_s = time.monotonic()
        exchange.sent_s, exchange.due_s = now_s, math.inf
        exchange.first_s = exchange.first_s or now_s
        if sent is None:
            self._meter(exchange, len(body), outcome="refused", down=True)
            self._lose(
                exchange, EdgeError(f"domain {request.domain_id}: Flower refused the message")
            )
            return ""
        order = order_digest(body, parts.get(MESSAGE_SIGNATURE, b""))
        exchange.orders[sent.message_id] = order
        self._meter(exchange, len(body), down=True, wire_bytes=sent.wire_bytes)
        return sent.message_id

    def _receive(self, exchange: "_Exchange", arrival: Arrival) -> None:
        if arrival.error is not None:
            code, reason = arrival.error
            node = f"node of {exchange.request.domain_id}"
            error = EdgeError(f"{node}: error {code}: {reason}")
            outcome: Outcome = "lost" if code in _LOST else "failed"
            self._meter(exchange, 0, outcome=outcome, down=False)
            if outcome == "lost":
                self._lose(exchange, error)
            else:
                exchange.response = failure_of(exchange.request, error)
            return
        reply = Reply(
            response=arrival.parts.get(MESSAGE_BODY, b""),
            transfers=arrival.parts.get(MESSAGE_TRANSFERS, b""),
        )
        order = exchange.orders[arrival.message_id]
        answer = Answer(reply=reply, signature=arrival.parts.get(MESSAGE_SIGNATURE, b""))
        try:
            if self._settings.verify is not None:  # before anything in the bytes is read
                self._settings.verify(exchange.request.domain_id, order, answer)
        except GraftError as error:
            self._meter(exchange, len(reply.response), outcome="failed", down=False)
            exchange.response = failure_of(exchange.request, error)
            return
        took_s = time.monotonic() - exchange.sent_s
        self._take(exchange, reply, measured_s=took_s, wire_bytes=arrival.wire_bytes)
        if self._settings.replies and not isinstance(exchange.response, Failure):
            self._settings.replies.save(exchange.body, reply)

    def _take(
        self,
        exchange: "_Exchange",
        reply: Reply,
        *,
        measured_s: float | None,
        wire_bytes: int | None = None,
    ) -> None:
        """Take a reply as far as it is valid, and record its ledger entries."""
        request = exchange.request
        try:
            response = response_to(request, reply.response)
            exchange.response = self._settings.digest(request, response)
            transfers = decode_transfers(reply.transfers, request, self._settings.run)
        except Exception as error:
            exchange.response, transfers = digest_failure(request, error), []
        for entry in transfers:
            self._record(entry)
        self._meter(
            exchange,
            len(reply.response),
            outcome="failed" if isinstance(exchange.response, Failure) else "ok",
            down=False,
            measured_s=measured_s,
            wire_bytes=wire_bytes,
        )

    def _lose(self, exchange: "_Exchange", error: EdgeError) -> None:
        """Ask again in a while; after ``lost_patience_s`` it is a failure."""
        now_s, allowance = time.monotonic(), exchange.request.allowance or NO_LIMITS
        # Within a limit of bytes nothing was planned for a second time.
        once = allowance.down_bytes is not None or allowance.up_bytes is not None
        if now_s - exchange.first_s < self._settings.lost_patience_s and not once:
            exchange.attempt += 1
            exchange.due_s = now_s + _ASK_AGAIN_S
        else:
            exchange.response = failure_of(exchange.request, error)

    def _end_silent(self, exchanges: Sequence["_Exchange"]) -> None:
        """Give up requests that are unanswered for too long, whatever the other devices do."""
        for exchange in exchanges:
            waiting = exchange.response is None and exchange.due_s == math.inf
            if waiting and time.monotonic() - exchange.sent_s > self._settings.answer_s:
                self._give_up(exchange, "within", self._settings.answer_s)

    def _give_up(self, exchange: "_Exchange", when: str, limit_s: float) -> None:
        lost = EdgeError(f"domain {exchange.request.domain_id}: no answer {when} {limit_s:.0f} s")
        exchange.response = failure_of(exchange.request, lost)
        self._meter(exchange, 0, outcome="lost", down=False)

    def _add_node(self, arrival: Arrival) -> None:
        """Note a node's domain; a node with an invalid answer stays unknown."""
        body = arrival.parts.get(MESSAGE_BODY, b"")
        try:
            domain_id = decode_join(body)
        except MessageError:
            return
        if domain_id in self._nodes:
            raise EdgeError(f"domain {domain_id}: got two nodes, wanted one")
        self._nodes[domain_id] = arrival.node_id
        for entry in join_entries(domain_id, self._settings.run, len(body)):
            self._record(replace(entry, round_index=self._settings.round_index))

    def _meter(
        self,
        exchange: "_Exchange",
        payload_bytes: int,
        *,
        outcome: Outcome = "ok",
        down: bool,
        measured_s: float | None = None,
        wire_bytes: int | None = None,
    ) -> None:
        self._record(
            exchange_entry(
                exchange.request,
                run=self._settings.run,
                down=down,
                attempt=exchange.attempt,
                payload_bytes=payload_bytes,
                wire_bytes=0 if outcome in ("lost", "refused") else wire_bytes,
                outcome=outcome,
                measured_s=measured_s,
            )
        )


@dataclass(kw_only=True, slots=True)
class _Exchange:
    """A request under way: when it is due to be sent (again), and its answer once there is one."""

    request: Request
    body: bytes
    response: Response | None = None
    orders: dict[str, bytes] = field(default_factory=dict)  # their digests, by message id
    attempt: int = 0
    first_s: float = 0.0
    sent_s: float = 0.0
    due_s: float = -math.inf
