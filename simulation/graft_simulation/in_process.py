"""The edge inside one process: no Flower, no Ray, the same bytes."""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager

from graft_server.request_log import record_exchange

from graft.core.records import LedgerEntry, Request, Response, failure_of
from graft.errors import NodesMissingError
from graft.rounds import Device, handle_request
from graft.wire.messages.codec import decode_request, encode_request, encode_response

OpenDevice = Callable[[Request], AbstractContextManager[Device]]


class LocalEdge:
    """``Edge`` to devices that ``open_device`` makes in this very thread, one after another.

    Every order and every answer passes through its own encoding; ``record`` gets a ledger
    entry for each. Wire bytes are modelled as one gRPC message each, as the devices' own
    transfers are. Nobody joins: the domains of ``domain_ids`` are there from the start.
    """

    def __init__(
        self,
        run: str,
        domain_ids: Collection[str],
        open_device: OpenDevice,
        record: Callable[[LedgerEntry], None],
    ) -> None:
        self._run = run
        self._domain_ids = frozenset(domain_ids)
        self._open_device = open_device
        self._record = record

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        """See ``Edge.ask``: one answer a request, in order; what fails is a ``Failure``."""
        return [self._carry(request) for request in requests]

    def _carry(self, request: Request) -> Response:
        if request.domain_id not in self._domain_ids:
            error = NodesMissingError(f"domain {request.domain_id}: no node speaks for it")
            return failure_of(request, error)
        started_s = time.monotonic()
        down = encode_request(request)
        up = self._response(decode_request(down))
        measured_s = time.monotonic() - started_s
        response, messages = record_exchange(
            request, down, up, run=self._run, measured_s=measured_s
        )
        for entry in messages:
            self._record(entry)
        return response

    def _response(self, request: Request) -> bytes:
        try:
            with self._open_device(request) as device:
                return encode_response(handle_request(request, device))
        except Exception as error:  # whatever goes wrong on a device has a name at the server
            return encode_response(failure_of(request, error))
