"""A request and its response: their ledger rows, and whether they match."""

from dataclasses import replace

from graft.core.ledger import SERVER
from graft.core.records import (
    Failure,
    LedgerEntry,
    Outcome,
    Phase,
    ProbeRequest,
    ProfileRequest,
    Request,
    Response,
    TrainRequest,
    TrainResult,
    failure_of,
)
from graft.errors import EdgeError, MessageError
from graft.wire.messages.codec import decode_response
from graft.wire.overhead import JOIN_DOWN_BYTES, JOIN_UP_BYTES, request_bytes, response_bytes

# The phases that a request travels down in and its answer comes up in.
_ROUTES: dict[type, tuple[str, Phase, Phase]] = {
    ProfileRequest: ("query.profile", "profile", "profile"),
    ProbeRequest: ("query.probe", "probe", "probe"),
    TrainRequest: ("train.learn", "ship", "report"),
}


def message_name(request: Request) -> str:
    """What kind of message carries the order: Flower's message type, the ledger's message."""
    return _ROUTES[type(request)][0]


def response_phase(request: Request) -> Phase:
    """The phase that the request's answer belongs to."""
    return _ROUTES[type(request)][2]


def exchange_entry(
    request: Request,
    *,
    run: str,
    down: bool,
    attempt: int = 0,
    payload_bytes: int,
    wire_bytes: int | None = None,
    outcome: Outcome = "ok",
    measured_s: float | None = None,
) -> LedgerEntry:
    """The ledger's row of a request on its way ``down``, or of its answer on its way up.

    Without ``wire_bytes`` they are modelled: what Flower's exchange carries that way.
    """
    name, down_phase, up_phase = _ROUTES[type(request)]
    if wire_bytes is None:
        wire_bytes = request_bytes(payload_bytes) if down else response_bytes(payload_bytes)
    return LedgerEntry(
        run=run,
        round_index=request.round_index,
        phase=down_phase if down else up_phase,
        method=request.method,
        domain_id=request.domain_id,
        sender=SERVER if down else request.domain_id,
        receiver=request.domain_id if down else SERVER,
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
        wire_bytes=JOIN_DOWN_BYTES + request_bytes(0),
        wire_source="modelled",
    )
    told = replace(
        asked,
        sender=domain_id,
        receiver=SERVER,
        payload_bytes=payload_bytes,
        wire_bytes=JOIN_UP_BYTES + response_bytes(payload_bytes),
    )
    return asked, told


def response_to(request: Request, body: bytes) -> Response:
    """The decoded answer, if it is one to this very request; else the failure that it is."""
    try:
        response = decode_response(body)
    except MessageError as error:
        return failure_of(request, error)
    if isinstance(response, Failure) and response.domain_id == request.domain_id:
        # A failure is charged to what was asked, whatever a confused node says it was.
        return replace(response, round_index=request.round_index, method=request.method)
    told: tuple[object, ...] = (response.domain_id,)
    wanted: tuple[object, ...] = (request.domain_id,)
    if isinstance(response, TrainResult | Failure):
        told += (response.round_index, response.method)
        wanted += (request.round_index, request.method)
    if told != wanted:
        wrong = f"answer to {request.domain_id}: got one to {told}, not to this request"
        return failure_of(request, EdgeError(wrong))
    return response


def record_exchange(
    request: Request, down: bytes, up: bytes, *, run: str, measured_s: float | None = None
) -> tuple[Response, tuple[LedgerEntry, LedgerEntry]]:
    """The answer in ``up``, and the rows of both messages where no real link carried them."""
    response = response_to(request, up)
    asked = exchange_entry(request, run=run, down=True, payload_bytes=len(down))
    told = exchange_entry(
        request,
        run=run,
        down=False,
        payload_bytes=len(up),
        outcome="failed" if isinstance(response, Failure) else "ok",
        measured_s=measured_s,
    )
    return response, (asked, told)
