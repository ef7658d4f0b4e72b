"""A device's part of a session: it asks the depot for orders until the session is over."""

import logging
import time
from collections.abc import Callable, Mapping

from graft.errors import TransportError
from graft_client.depot_client import GrpcLink, growing_wait

log = logging.getLogger("graft")
# A server that begins a round ends every session before; this is for one that never comes back.
_DESERTED_S = 3600.0


def answer_orders(
    link: GrpcLink,
    session: str,
    domain_id: str,
    answer: Callable[[Mapping[str, bytes]], Mapping[str, bytes]],
) -> None:
    """Answer a domain's orders, one after another, until its session is over.

    A call that broke off is made again, with the same answer. It ends by itself where no order
    came for an hour. Raises GraftError where the depot refuses the device.
    """
    answered, missed = "", 0
    parts: Mapping[str, bytes] = {}
    wait, heard_s = growing_wait(time.sleep), time.monotonic()
    while time.monotonic() - heard_s < _DESERTED_S:
        try:
            order = link.attend(session, domain_id, answered, parts)
        except TransportError as error:
            log.warning("depot: %s", error)
            missed += 1
            wait(missed)
            continue
        if order.is_over:
            return
        answered, parts, missed = order.order_id, {}, 0
        if answered:
            parts = answer(dict(order.parts))
            heard_s = time.monotonic()
