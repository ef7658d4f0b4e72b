"""Domains that are lost in the middle of a round, over whichever engine's edge."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

from graft_server.request_log import exchange_entry

from graft.core.config import NetworkConfig
from graft.core.exchange import (
    GrowRequest,
    ProbeRequest,
    ProfileRequest,
    Request,
    Response,
    TrainRequest,
    failure_of,
)
from graft.core.ports import Edge
from graft.core.records import LedgerEntry
from graft.core.seeding import stream
from graft.errors import DomainLostError
from graft.wire.messages.codec import encode_request

# When in a round each request comes.
_TURNS = {ProfileRequest: 0, ProbeRequest: 1, TrainRequest: 2, GrowRequest: 2}
_NUM_TURNS = 3


def lost_from(domain_id: str, round_index: int, seed: int, network: NetworkConfig) -> int | None:
    """The index of a round's first request that a domain does not answer; None for no dropout."""
    generator = stream("dropout", seed, domain_id, round_index)
    if generator.random() >= network.dropout_rate:
        return None
    return int(generator.integers(_NUM_TURNS))


@dataclass(frozen=True, slots=True)
class DropoutEdge:
    """``Edge`` some of whose domains stop answering: requests still go down to them, and the
    responses are recorded as lost. ``record`` gets those entries, their wire bytes modelled."""

    edge: Edge
    _: KW_ONLY
    run: str
    seed: int
    network: NetworkConfig
    record: Callable[[LedgerEntry], None]

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        """See ``Edge.ask``: a lost domain's response is a failure named DomainLostError."""
        responses = iter(
            self.edge.ask([request for request in requests if not self._is_lost(request)])
        )
        return [
            self._lose(request) if self._is_lost(request) else next(responses)
            for request in requests
        ]

    def _is_lost(self, request: Request) -> bool:
        turn = lost_from(request.domain_id, request.round_index, self.seed, self.network)
        return turn is not None and turn <= _TURNS[type(request)]

    def _lose(self, request: Request) -> Response:
        num_bytes, run = len(encode_request(request)), self.run
        self.record(exchange_entry(request, run=run, down=True, payload_bytes=num_bytes))
        self.record(
            exchange_entry(
                request, run=run, down=False, payload_bytes=0, wire_bytes=0, outcome="lost"
            )
        )
        lost = f"domain {request.domain_id}: dropped out of round {request.round_index}"
        return failure_of(request, DomainLostError(lost))
