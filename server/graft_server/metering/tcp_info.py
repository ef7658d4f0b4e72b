"""What the kernel counted of one TCP connection, as bytes on an Ethernet."""

import socket
import struct
from dataclasses import dataclass
from typing import Final

from graft.errors import ProxyError
from graft.wire.traffic_log import (
    ETHERNET_BYTES,
    IP_BYTES,
    SYN_BYTES,
    TCP_BYTES,
    TIMESTAMP_BYTES,
    TrafficCounters,
)

# Offsets in Linux's ``struct tcp_info``, which only ever grows at its end.
_STATE, _OPTIONS, _RETRANSMITS, _RECEIVED, _SEGMENTS, _SENT = 0, 5, 100, 128, 136, 200
_LENGTH: Final = _SENT + 8
_ASKED: Final = 256
_HAS_TIMESTAMPS: Final = 1
_CLOSED: Final = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class TcpReading:
    """What one connection carried so far; ``closed``: nothing more will come or go."""

    carried: TrafficCounters
    closed: bool


def read_tcp_info(connection: socket.socket) -> TcpReading:
    """The server side's reading of an accepted connection, its handshake included.

    Headers are counted from segments. What a peer sent twice though it had arrived counts as
    headers only, and acknowledgements of losses (12 bytes and more each) as plain ones.
    Raises ProxyError where the kernel does not tell bytes sent (Linux before 4.19).
    """
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ASKED)
    if len(info) < _LENGTH:
        raise ProxyError(f"kernel: tells {len(info)} bytes of TCP_INFO, wanted {_LENGTH}")
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

    Nothing else can have been repeated on a connection that has said nothing yet.
    """
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ASKED)
    (repeated,) = struct.unpack_from("=I", info, _RETRANSMITS)
    segment_bytes = SYN_BYTES + _header_bytes(connection, bool(info[_OPTIONS] & _HAS_TIMESTAMPS))
    return TrafficCounters(down_bytes=repeated * segment_bytes, down_segments=repeated)


def _header_bytes(connection: socket.socket, timestamps: bool) -> int:
    version = 6 if connection.family == socket.AF_INET6 else 4
    options = TIMESTAMP_BYTES if timestamps else 0
    return ETHERNET_BYTES + IP_BYTES[version] + TCP_BYTES + options
