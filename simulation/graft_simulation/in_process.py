"""The edge inside one process: no Flower, no Ray, the same bytes."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from graft_server.request_log import record_exchange
from graft_server.round_loop import Connect, RunSettings

from graft.core.exchange import Request, Response, failure_of
from graft.core.ports import Edge, Progress
from graft.core.records import LedgerEntry
from graft.errors import NodesMissingError
from graft.rounds import handle_request
from graft.wire.messages.codec import decode_request, encode_request, encode_response
from graft_simulation.simulated_devices import OpenDevice, devices_in_memory, simulated_factory


def connect_in_process(settings: RunSettings, *, compiled: bool = False) -> Connect:
    """The way to simulated devices of this process, for ``run_rounds`` with the same settings.

    With ``compiled`` they train in the compiled trainer where it has the method's form."""

    def connect(record: Callable[[LedgerEntry], None], progress: Progress) -> Edge:
        folder, world, store = settings.folder, settings.world, settings.open_store()
        public_key = (folder.keys / "server.pub").read_bytes()
        factory = simulated_factory(
            settings.config, world, folder.run_id, public_key, store, compiled
        )
        devices = devices_in_memory(factory, store, record)
        return LocalEdge(folder.run_id, world.domain_ids, devices, record)

    return connect


@dataclass(frozen=True, slots=True)
class LocalEdge:
    """``Edge`` to devices that ``open_device`` makes in this very thread, one after another.

    Every request and every response passes through its own encoding; ``record`` gets a ledger
    entry for each. Wire bytes are modelled as one gRPC message each, as the devices' own
    transfers are. No node joins: the domains of ``domain_ids`` are there from the start.
    """

    run: str
    domain_ids: Collection[str]
    open_device: OpenDevice
    record: Callable[[LedgerEntry], None]

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        """See ``Edge.ask``: one response a request, in order; what fails is a ``Failure``."""
        return [self._exchange(request) for request in requests]

    def _exchange(self, request: Request) -> Response:
        if request.domain_id not in self.domain_ids:
            error = NodesMissingError(f"domain {request.domain_id}: no node speaks for it")
            return failure_of(request, error)
        started_s = time.monotonic()
        down = encode_request(request)
        up = self._response(decode_request(down))
        measured_s = time.monotonic() - started_s
        response, entries = record_exchange(request, down, up, run=self.run, measured_s=measured_s)
        for entry in entries:
            self.record(entry)
        return response

    def _response(self, request: Request) -> bytes:
        try:
            with self.open_device(request) as device:
                return encode_response(handle_request(request, device))
        except Exception as error:  # the server gets a named failure, whatever went wrong
            return encode_response(failure_of(request, error))
