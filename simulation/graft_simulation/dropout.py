"""Domains that are lost in the middle of a round, over whichever engine's edge."""

from collections.abc import Callable, Sequence

from graft_server.request_log import exchange_entry

from graft.core.config import NetworkConfig
from graft.core.ports import Edge
from graft.core.records import Answer, LedgerEntry, Order, ProbeOrder, ProfileOrder, failure_of
from graft.core.seeding import stream
from graft.errors import DomainLostError
from graft.wire.messages.codec import encode_order

# What a domain is asked in a round, in turn: for its profile, to probe, to learn.
_TURNS = 3


def lost_from(domain_id: str, round_index: int, seed: int, network: NetworkConfig) -> int | None:
    """The turn of a round from which on a domain is lost, 0 to 2; None where it stays."""
    generator = stream("dropout", seed, domain_id, round_index)
    if generator.random() >= network.dropout_rate:
        return None
    return int(generator.integers(_TURNS))


class DropoutEdge:
    """``Edge`` of which some domains stop answering: an order still goes down to them, and what
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

    def ask(self, orders: Sequence[Order]) -> list[Answer]:
        """See ``Edge.ask``: a lost domain's answer is a failure named DomainLostError."""
        answers = iter(self._edge.ask([order for order in orders if not self._is_lost(order)]))
        return [self._lose(order) if self._is_lost(order) else next(answers) for order in orders]

    def _is_lost(self, order: Order) -> bool:
        turn = lost_from(order.domain_id, order.round_index, self._seed, self._network)
        return turn is not None and turn <= _turn(order)

    def _lose(self, order: Order) -> Answer:
        num_bytes, run = len(encode_order(order)), self._run
        self._record(exchange_entry(order, run=run, down=True, payload_bytes=num_bytes))
        self._record(
            exchange_entry(
                order, run=run, down=False, payload_bytes=0, wire_bytes=0, outcome="lost"
            )
        )
        error = DomainLostError(
            f"domain {order.domain_id}: dropped out of round {order.round_index}, wanted an answer"
        )
        return failure_of(order, error)


def _turn(order: Order) -> int:
    if isinstance(order, ProfileOrder):
        return 0
    return 1 if isinstance(order, ProbeOrder) else 2
