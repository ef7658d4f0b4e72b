"""Domains that are lost in the middle of a round, over whichever engine's edge."""

from collections.abc import Callable, Sequence

from graft_server.request_log import exchange_entry

from graft.core.config import NetworkConfig
from graft.core.ports import Edge
from graft.core.records import (
    LedgerEntry,
    ProbeRequest,
    ProfileRequest,
    Request,
    Response,
    failure_of,
)
from graft.core.seeding import stream
from graft.errors import DomainLostError
from graft.wire.messages.codec import encode_request

# What a domain is asked in a round, in turn: for its profile, to probe, to learn.
_TURNS = 3


def lost_from(domain_id: str, round_index: int, seed: int, network: NetworkConfig) -> int | None:
    """The turn of a round from which on a domain is lost, 0 to 2; None where it stays."""
    generator = stream("dropout", seed, domain_id, round_index)
    if generator.random() >= network.dropout_rate:
        return None
    return int(generator.integers(_TURNS))


class DropoutEdge:
    """``Edge`` of which some domains stop answering: a request still goes down to them, and what
    should come up is written as lost. ``record`` gets those entries, their wire bytes modelled."""

    def __init__(
        self,
        edge: Edge,
        *,
        run: str,
        seed: int,
        network: NetworkConfig,
        record: Callable[[LedgerEntry], None],
    ) -> None:
        self._edge = edge
        self._run = run
        self._seed = seed
        self._network = network
        self._record = record

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        """See ``Edge.ask``: a lost domain's answer is a failure named DomainLostError."""
        responses = iter(
            self._edge.ask([request for request in requests if not self._is_lost(request)])
        )
        return [
            self._lose(request) if self._is_lost(request) else next(responses)
            for request in requests
        ]

    def _is_lost(self, request: Request) -> bool:
        turn = lost_from(request.domain_id, request.round_index, self._seed, self._network)
        return turn is not None and turn <= _turn(request)

    def _lose(self, request: Request) -> Response:
        num_bytes, run = len(encode_request(request)), self._run
        self._record(exchange_entry(request, run=run, down=True, payload_bytes=num_bytes))
        self._record(
            exchange_entry(
                request, run=run, down=False, payload_bytes=0, wire_bytes=0, outcome="lost"
            )
        )
        error = DomainLostError(
            f"domain {request.domain_id}: dropped out of round {request.round_index}"
        )
        return failure_of(request, error)


def _turn(request: Request) -> int:
    if isinstance(request, ProfileRequest):
        return 0
    return 1 if isinstance(request, ProbeRequest) else 2
