"""The edge inside one process: no Flower, no Ray, the same bytes."""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager

from graft_server.request_log import settle

from graft.core.records import Answer, LedgerEntry, Order, failure_of
from graft.errors import NodesMissingError
from graft.rounds import Device, answer_order
from graft.wire.messages.codec import decode_order, encode_answer, encode_order

OpenDevice = Callable[[Order], AbstractContextManager[Device]]


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

    def ask(self, orders: Sequence[Order]) -> list[Answer]:
        """See ``Edge.ask``: one answer an order, in order; what fails is a ``Failure``."""
        return [self._carry(order) for order in orders]

    def _carry(self, order: Order) -> Answer:
        if order.domain_id not in self._domain_ids:
            error = NodesMissingError(f"domain {order.domain_id}: no node speaks for it")
            return failure_of(order, error)
        started_s = time.monotonic()
        down = encode_order(order)
        up = self._answer(decode_order(down))
        measured_s = time.monotonic() - started_s
        answer, messages = settle(order, down, up, run=self._run, measured_s=measured_s)
        for entry in messages:
            self._record(entry)
        return answer

    def _answer(self, order: Order) -> bytes:
        try:
            with self._open_device(order) as device:
                return encode_answer(answer_order(order, device))
        except Exception as error:  # whatever goes wrong on a device has a name at the server
            return encode_answer(failure_of(order, error))
