"""The server's way to its domains through Flower's Grid: bounded waits, every byte metered."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from graft.errors import EdgeError, MessageError, NodesMissingError
from graft.values import Answer, Failure, LedgerEntry, Order, Outcome, failure_of
from graft.wire.codec import MESSAGE_BODY, MESSAGE_RECORD, decode_join, encode_order
from server.conduct import Connect
from server.exchange import (
    Progress,
    answer_phase,
    answer_to,
    exchange_entry,
    join_entries,
    message_name,
)

_POLL_S = 0.05
_LATECOMER_S = 1.0
_POLL_S_PER_MESSAGE = 0.002


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeSettings:
    """Bounds of the conversation, in seconds.

    ``join_timeout_s``: how long to wait for all nodes. ``stall_timeout_s``: how long without
    any answer at all before the rest count as lost.
    """

    run: str
    join_timeout_s: float = 120.0
    stall_timeout_s: float = 900.0


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
        self._grid = grid
        self._settings = settings
        self._record = record
        self._progress = progress
        self._nodes: dict[str, int] = {}

    def connect(self, expected: Sequence[str]) -> None:
        """Wait until every expected domain has a node and has said so.

        Raises NodesMissingError, naming what is missing, after ``join_timeout_s``.
        """
        deadline_s = time.monotonic() + self._settings.join_timeout_s
        wanted, asked, pending = set(expected), set[int](), set[str]()
        complete_s: float | None = None
        while True:
            missing = sorted(wanted - set(self._nodes))
            if not missing:
                # A second node for a domain must be heard of, a silent one must not be waited for.
                complete_s = complete_s or time.monotonic()
                if not pending or time.monotonic() > complete_s + _LATECOMER_S:
                    return
            elif time.monotonic() > deadline_s:
                raise NodesMissingError(
                    f"nodes: got {len(wanted) - len(missing)} of {len(wanted)} within "
                    f"{self._settings.join_timeout_s:.0f} s; missing {', '.join(missing[:5])}"
                )
            # At the start the list of nodes is short or empty, and one that never answers
            # must not hold up the others: only names that were heard count.
            fresh = sorted(set(self._grid.get_node_ids()) - asked)
            asked.update(fresh)
            for node_id in fresh:
                message = _message(b"", node_id, "query.join")
                pending.update(self._grid.push_messages([message]))
            for reply in self._grid.pull_messages(list(pending)) if pending else ():
                pending.remove(reply.metadata.reply_to_message_id)
                self._welcome(reply)
            self._progress("join", len(wanted & set(self._nodes)), len(wanted))
            time.sleep(_POLL_S + _POLL_S_PER_MESSAGE * len(pending))

    def ask(self, orders: Sequence[Order]) -> list[Answer]:
        """See ``Edge.ask``: one answer an order, in order; what fails is a ``Failure``."""
        answers: list[Answer | None] = [None] * len(orders)
        bodies = [encode_order(order) for order in orders]
        pending: dict[str, int] = {}
        started_s: dict[str, float] = {}
        done = 0
        for number, (order, body) in enumerate(zip(orders, bodies, strict=True)):
            if order.domain_id not in self._nodes:
                answers[number] = failure_of(
                    order, NodesMissingError(f"domain {order.domain_id}: no node speaks for it")
                )
                continue
            message = _message(body, self._nodes[order.domain_id], message_name(order))
            message_id = next(iter(self._grid.push_messages([message])), "")
            outcome: Outcome = "ok"
            if message_id:
                pending[message_id] = number
                started_s[message_id] = time.monotonic()
            else:
                outcome = "refused"
                answers[number] = failure_of(
                    order, EdgeError(f"domain {order.domain_id}: Flower refused the message")
                )
            self._meter(order, len(body), outcome=outcome, down=True)
        last_s = time.monotonic()
        if orders:  # long work shows from its start, not from its first answer
            self._progress(answer_phase(orders[0]), 0, len(orders))
        while pending:
            for reply in self._grid.pull_messages(list(pending)):
                message_id = reply.metadata.reply_to_message_id
                number = pending.pop(message_id)
                order = orders[number]
                body = _body(reply)
                answers[number] = answer = _answer(order, reply, body)
                last_s = time.monotonic()
                self._meter(
                    order,
                    len(body),
                    outcome="failed" if isinstance(answer, Failure) else "ok",
                    down=False,
                    measured_s=last_s - started_s[message_id],
                )
                done += 1
                self._progress(answer_phase(order), done, len(orders))
            if time.monotonic() - last_s > self._settings.stall_timeout_s:
                break
            if pending:  # each look costs Flower's store a scan of what is pending
                time.sleep(_POLL_S + _POLL_S_PER_MESSAGE * len(pending))
        for number in pending.values():
            lost = EdgeError(
                f"domain {orders[number].domain_id}: no answer while nothing came for "
                f"{self._settings.stall_timeout_s:.0f} s"
            )
            answers[number] = failure_of(orders[number], lost)
            self._meter(orders[number], 0, outcome="lost", down=False)
        return [answer for answer in answers if answer is not None]

    def _welcome(self, reply: Message) -> None:
        """Note which domain a node speaks for; one that answers nonsense stays unknown."""
        body = _body(reply)
        try:
            domain_id = decode_join(body)
        except MessageError:
            return
        if domain_id in self._nodes:
            raise EdgeError(f"domain {domain_id}: got two nodes, wanted one")
        self._nodes[domain_id] = reply.metadata.src_node_id
        for entry in join_entries(domain_id, self._settings.run, len(body)):
            self._record(entry)

    def _meter(
        self,
        order: Order,
        payload_bytes: int,
        *,
        outcome: Outcome,
        down: bool,
        measured_s: float | None = None,
    ) -> None:
        self._record(
            exchange_entry(
                order,
                run=self._settings.run,
                down=down,
                payload_bytes=payload_bytes,
                wire_bytes=0 if outcome in ("lost", "refused") else None,
                outcome=outcome,
                measured_s=measured_s,
            )
        )


def _message(body: bytes, node_id: int, message_type: str) -> Message:
    content = RecordDict({MESSAGE_RECORD: ConfigRecord({MESSAGE_BODY: body})})
    return Message(content, dst_node_id=node_id, message_type=message_type)


def _body(reply: Message) -> bytes:
    if not reply.has_content():
        return b""
    body = reply.content.config_records.get(MESSAGE_RECORD, ConfigRecord()).get(MESSAGE_BODY, b"")
    return body if isinstance(body, bytes) else b""


def _answer(order: Order, reply: Message, body: bytes) -> Answer:
    if reply.has_content():
        return answer_to(order, body)
    reason = f"node of {order.domain_id}: error {reply.error.code}: {reply.error.reason}"
    return failure_of(order, EdgeError(reason))
