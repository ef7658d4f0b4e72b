"""An order and its answer, whichever way they travel: their ledger rows, and whether they match."""

from collections.abc import Callable
from dataclasses import replace

from graft.core.ledger import SERVER
from graft.core.records import (
    Answer,
    Failure,
    LearnOrder,
    LearnReport,
    LedgerEntry,
    Order,
    Outcome,
    Phase,
    ProbeOrder,
    ProfileOrder,
    failure_of,
)
from graft.errors import EdgeError, MessageError
from graft.wire.messages.codec import decode_answer
from graft.wire.overhead import JOIN_DOWN_BYTES, JOIN_UP_BYTES, answer_bytes, order_bytes

Progress = Callable[[str, int, int], None]
# The phases that an order travels down in and its answer comes up in.
_ROUTES: dict[type, tuple[str, Phase, Phase]] = {
    ProfileOrder: ("query.profile", "profile", "profile"),
    ProbeOrder: ("query.probe", "probe", "probe"),
    LearnOrder: ("train.learn", "ship", "report"),
}


def message_name(order: Order) -> str:
    """What kind of message carries the order: Flower's message type, the ledger's message."""
    return _ROUTES[type(order)][0]


def answer_phase(order: Order) -> Phase:
    """The phase that the order's answer belongs to."""
    return _ROUTES[type(order)][2]


def exchange_entry(
    order: Order,
    *,
    run: str,
    down: bool,
    attempt: int = 0,
    payload_bytes: int,
    wire_bytes: int | None = None,
    outcome: Outcome = "ok",
    measured_s: float | None = None,
) -> LedgerEntry:
    """The ledger's row of an order on its way ``down``, or of its answer on its way up.

    Without ``wire_bytes`` they are modelled: what Flower's exchange carries that way.
    """
    name, down_phase, up_phase = _ROUTES[type(order)]
    if wire_bytes is None:
        wire_bytes = order_bytes(payload_bytes) if down else answer_bytes(payload_bytes)
    return LedgerEntry(
        run=run,
        round_index=order.round_index,
        phase=down_phase if down else up_phase,
        method=order.method,
        domain_id=order.domain_id,
        sender=SERVER if down else order.domain_id,
        receiver=order.domain_id if down else SERVER,
        message=name,
        attempt=attempt,
        payload_bytes=payload_bytes,
        wire_bytes=wire_bytes,
        wire_source="modelled",
        measured_s=measured_s,
        outcome=outcome,
    )


def join_entries(domain_id: str, run: str, payload_bytes: int) -> tuple[LedgerEntry, LedgerEntry]:
    """The ledger's rows of a node being asked for its domain, and of what it answers.

    It is a run's first exchange; the bundle of the application that comes with it is not in it.
    """
    asked = LedgerEntry(
        run=run,
        round_index=0,
        phase="join",
        method="",
        domain_id=domain_id,
        sender=SERVER,
        receiver=domain_id,
        message="query.join",
        payload_bytes=0,
        wire_bytes=JOIN_DOWN_BYTES + order_bytes(0),
        wire_source="modelled",
    )
    told = replace(
        asked,
        sender=domain_id,
        receiver=SERVER,
        payload_bytes=payload_bytes,
        wire_bytes=JOIN_UP_BYTES + answer_bytes(payload_bytes),
    )
    return asked, told


def answer_to(order: Order, body: bytes) -> Answer:
    """The decoded answer, if it is one to this very order; else the failure that it is."""
    try:
        answer = decode_answer(body)
    except MessageError as error:
        return failure_of(order, error)
    if isinstance(answer, Failure) and answer.domain_id == order.domain_id:
        # A failure is charged to what was asked, whatever a confused node says it was.
        return replace(answer, round_index=order.round_index, method=order.method)
    told: tuple[object, ...] = (answer.domain_id,)
    wanted: tuple[object, ...] = (order.domain_id,)
    if isinstance(answer, LearnReport | Failure):
        told += (answer.round_index, answer.method)
        wanted += (order.round_index, order.method)
    if told != wanted:
        wrong = f"answer to {order.domain_id}: got one to {told}, not to this order"
        return failure_of(order, EdgeError(wrong))
    return answer


def settle(
    order: Order, down: bytes, up: bytes, *, run: str, measured_s: float | None = None
) -> tuple[Answer, tuple[LedgerEntry, LedgerEntry]]:
    """The answer in ``up``, and the rows of both messages where no real link carried them."""
    answer = answer_to(order, up)
    asked = exchange_entry(order, run=run, down=True, payload_bytes=len(down))
    told = exchange_entry(
        order,
        run=run,
        down=False,
        payload_bytes=len(up),
        outcome="failed" if isinstance(answer, Failure) else "ok",
        measured_s=measured_s,
    )
    return answer, (asked, told)
