"""A disk that is full while devices of a simulation write: the run ends, and can be resumed."""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graft.core.exchange import Failure, Request, Response
from graft.core.ports import Edge, Progress
from graft.core.records import LedgerEntry
from graft.errors import StorageError

if TYPE_CHECKING:
    from graft_server.round_loop import Connect  # with Flower, which a worker does without

FULL_DISK = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))


def ended_by_full_disk(connect: "Connect") -> "Connect":
    """The same way to the domains; what a device could not write ends the run, to be resumed.

    All devices share the run's disk: the next ones would fail as well, and for good.
    """

    def connect_watched(record: Callable[[LedgerEntry], None], progress: Progress) -> Edge:
        return _WatchedEdge(connect(record, progress))

    return connect_watched


@dataclass(frozen=True, slots=True)
class _WatchedEdge:
    edge: Edge

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        responses = self.edge.ask(requests)
        for each in responses:
            if isinstance(each, Failure) and any(word in each.message for word in FULL_DISK):
                raise StorageError(each.message)
        return responses
