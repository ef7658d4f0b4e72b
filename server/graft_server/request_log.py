"""A request and its response: their ledger rows, and whether they match."""

from dataclasses import replace

from graft.core.exchange import (
    Failure,
    GrowRequest,
    ProbeRequest,
    ProfileRequest,
    Request,
    Response,
    TrainRequest,
    TrainResult,
    failure_of,
)
from graft.core.ledger import SERVER
from graft.core.records import LedgerEntry, Outcome, Phase
from graft.errors import EdgeError, MessageError
from graft.wire.messages.codec import decode_response
from graft.wire.overhead import JOIN_DOWN_BYTES, JOIN_UP_BYTES, request_bytes, response_bytes

# Message type, the phase of the request, the phase of its response.
_ROUTES: dict[type, tuple[str, Phase, Phase]] = {
    ProfileRequest: ("query.profile", "profile", "profile"),
    ProbeRequest: ("query.probe", "probe", "probe"),
    TrainRequest: ("train.learn", "ship", "report"),
    GrowRequest: ("train.grow", "grow", "grow"),
}


def message_name(request: Request) -> str:
    """Flower's message type of a request, which is the ledger's message too."""
    return _ROUTES[type(request)][0]


def response_phase(request: Request) -> Phase:
    """The phase that the response to a request belongs to."""
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
    """The ledger row of a request (``down``) or of its response.

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
    """The ledger rows of the request for a node's domain, and of its response.

    It is a run's first exchange; the application bundle sent with it is not counted.
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
    replied = replace(
        asked,
        sender=domain_id,
        receiver=SERVER,
        payload_bytes=payload_bytes,
        wire_bytes=JOIN_UP_BYTES + response_bytes(payload_bytes),
    )
    return asked, replied


def response_to(request: Request, body: bytes) -> Response:
    """The decoded response if it is one to this very request, else a failure."""
    try:
        response = decode_response(body)
    except MessageError as error:
        return failure_of(request, error)
    if isinstance(response, Failure) and response.domain_id == request.domain_id:
        # A failure is charged to the request, whatever a node says that it was.
        return replace(response, round_index=request.round_index, method=request.method)
    got: tuple[object, ...] = (response.domain_id,)
    wanted: tuple[object, ...] = (request.domain_id,)
    if isinstance(response, TrainResult | Failure):
        got += (response.round_index, response.method)
        wanted += (request.round_index, request.method)
    if got != wanted:
        wrong = f"answer to {request.domain_id}: got one to {got}, wanted one to {wanted}"
        return failure_of(request, EdgeError(wrong))
    return response


def record_exchange(
    request: Request, down: bytes, up: bytes, *, run: str, measured_s: float | None = None
) -> tuple[Response, tuple[LedgerEntry, LedgerEntry]]:
    """The response in ``up``, and modelled ledger rows of both messages."""
    response = response_to(request, up)
    asked = exchange_entry(request, run=run, down=True, payload_bytes=len(down))
    outcome: Outcome = "failed" if isinstance(response, Failure) else "ok"
    replied = exchange_entry(
        request, run=run, down=False, payload_bytes=len(up), outcome=outcome, measured_s=measured_s
    )
    return response, (asked, replied)
