"""What the kernel counts of TCP connections, as bytes on an Ethernet, by their peer's address."""

import contextlib
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from graft.core.ports import Clock
from graft.errors import ProxyError
from graft.wire.traffic_log import (
    ETHERNET_BYTES,
    IP_BYTES,
    SYN_BYTES,
    TCP_BYTES,
    TIMESTAMP_BYTES,
    TrafficCounters,
    TrafficRecord,
)

# Offsets in Linux's ``struct tcp_info``, which only ever grows at its end.
_STATE, _OPTIONS, _RETRANSMITS, _RECEIVED, _SEGMENTS, _SENT = 0, 5, 100, 128, 136, 200
_LENGTH: Final = _SENT + 8
_ASKED: Final = 256
_HAS_TIMESTAMPS: Final = 1
_CLOSED: Final = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class TcpReading:
    """The traffic of one connection so far; ``closed``: its last segment is counted."""

    carried: TrafficCounters
    closed: bool


def read_tcp_info(connection: socket.socket) -> TcpReading:
    """The server side's reading of an accepted connection, its handshake included.

    Headers are counted from segments. What a peer sent twice though it had arrived counts as
    headers only, and acknowledgements of losses (12 bytes and more each) as plain ones.
    Raises ProxyError where the kernel does not count bytes sent (Linux before 4.19).
    """
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ASKED)
    if len(info) < _LENGTH:
        raise ProxyError(f"kernel: got {len(info)} bytes of TCP_INFO, wanted {_LENGTH}")
    (received,) = struct.unpack_from("=Q", info, _RECEIVED)
    (sent,) = struct.unpack_from("=Q", info, _SENT)
    segments_out, segments_in = struct.unpack_from("=II", info, _SEGMENTS)
    segments_out += 1  # the kernel counts the SYN it got and not the one it answered with
    (repeated,) = struct.unpack_from("=I", info, _RETRANSMITS)
    header_bytes = _header_bytes(connection, bool(info[_OPTIONS] & _HAS_TIMESTAMPS))
    return TcpReading(
        carried=TrafficCounters(
            up_bytes=received + header_bytes * segments_in + SYN_BYTES,
            down_bytes=sent + header_bytes * segments_out + SYN_BYTES,
            up_segments=segments_in,
            down_segments=segments_out,
            repeated_segments=repeated,
        ),
        closed=info[_STATE] == _CLOSED,
    )


def handshake_repeats(connection: socket.socket) -> TrafficCounters:
    """What the server sent again before it accepted, which no later reading has in it.

    A new connection has sent nothing else that could have been repeated.
    """
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ASKED)
    (repeated,) = struct.unpack_from("=I", info, _RETRANSMITS)
    segment_bytes = SYN_BYTES + _header_bytes(connection, bool(info[_OPTIONS] & _HAS_TIMESTAMPS))
    return TrafficCounters(down_bytes=repeated * segment_bytes, down_segments=repeated)


def _header_bytes(connection: socket.socket, timestamps: bool) -> int:
    version = 6 if connection.family == socket.AF_INET6 else 4
    options = TIMESTAMP_BYTES if timestamps else 0
    return ETHERNET_BYTES + IP_BYTES[version] + TCP_BYTES + options


class PeerMeter:
    """Counts the traffic of open connections since the last lines, by their peer's address.

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
        """Count the connection from its handshake until the block is left."""
        peer = client.getpeername()[0]
        self._seen[client] = (peer, TrafficCounters())
        self._fresh[peer] += handshake_repeats(client)
        try:
            yield
        finally:
            self._read(client)
            del self._seen[client]

    def is_over(self, client: socket.socket) -> bool:
        """Whether the connection's last segment is counted."""
        return read_tcp_info(client).closed

    def write(self) -> None:
        """Record a line for each peer that had traffic."""
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
                self.broken = error  # devices are still served; ``TcpProxy.close`` raises it
        self._fresh.clear()
        self._since_s = until_s

    def _read(self, client: socket.socket) -> None:
        peer, before = self._seen[client]
        now = read_tcp_info(client).carried
        self._fresh[peer] += now - before
        self._seen[client] = (peer, now)
