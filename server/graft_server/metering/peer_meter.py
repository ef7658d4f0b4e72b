"""Open connections' counts as meter lines."""

import contextlib
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator

from graft.core.ports import Clock
from graft.wire.traffic_log import TrafficCounters, TrafficRecord
from graft_server.metering.tcp_info import handshake_repeats, read_tcp_info


class PeerMeter:
    """What connections carried since the last lines, by their peer's address.

    ``broken`` is what ``record`` raised, after which nothing more is written.
    """

    def __init__(self, service: str, record: Callable[[TrafficRecord], None], clock: Clock) -> None:
        self._service = service
        self._record = record
        self._clock = clock
        self._since_s = clock()
        self._seen: dict[socket.socket, tuple[str, TrafficCounters]] = {}
        self._fresh: dict[str, TrafficCounters] = defaultdict(TrafficCounters)
        self.broken: Exception | None = None

    @contextlib.contextmanager
    def counting(self, client: socket.socket) -> Iterator[None]:
        """Count the connection from its handshake on, and last as the block is left."""
        peer = client.getpeername()[0]
        self._seen[client] = (peer, TrafficCounters())
        self._fresh[peer] += handshake_repeats(client)
        try:
            yield
        finally:
            self._read(client)
            del self._seen[client]

    def write(self) -> None:
        """A line for each peer that anything was carried for."""
        for client in self._seen:
            self._read(client)
        until_s = self._clock()
        for peer, carried in self._fresh.items():
            if carried == TrafficCounters() or self.broken is not None:
                continue
            line = TrafficRecord(
                since_s=self._since_s,
                until_s=until_s,
                peer=peer,
                service=self._service,
                carried=carried,
            )
            try:
                self._record(line)
            except Exception as error:
                self.broken = error  # devices are still served; ``close`` tells
        self._fresh.clear()
        self._since_s = until_s

    def _read(self, client: socket.socket) -> None:
        peer, before = self._seen[client]
        now = read_tcp_info(client).carried
        self._fresh[peer] += now - before
        self._seen[client] = (peer, now)
