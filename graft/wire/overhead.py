"""The model of wire bytes: what carrying a message takes, where it is not measured.

Framing, TLS records and TCP segments follow from lengths. What Flower and gRPC send beside a
message does not: those constants were measured (``benchmarks/trust/flower_wire.py`` and
``depot_wire.py``: Flower 1.41, gRPC 1.81, TLS 1.3 with certificates of one elliptic curve, the
counters of a link's interfaces). Bytes are those of Ethernet frames.
"""

from typing import Final

from graft.wire.traffic_log import ETHERNET_BYTES, IP_BYTES, TCP_BYTES, TIMESTAMP_BYTES

HEADER_BYTES: Final = ETHERNET_BYTES + IP_BYTES[4] + TCP_BYTES + TIMESTAMP_BYTES
SEGMENT_BYTES: Final = 1500 - (HEADER_BYTES - ETHERNET_BYTES)
TLS_RECORD_BYTES: Final = 16 * 1024
TLS_HEADER_BYTES: Final = 22
# Segments that one acknowledgement answers, where the receiver's network card merges them.
_ACKNOWLEDGED: Final = 5

_GRPC_PREFIX_BYTES: Final = 5
_HTTP2_FRAME_BYTES: Final = 16 * 1024
_HTTP2_HEADER_BYTES: Final = 9

# Beside the message itself, in its own direction: HTTP/2's headers and trailers of a call.
FETCH_DOWN_BYTES: Final = 140
PUSH_UP_BYTES: Final = 300
PUSH_DOWN_BYTES: Final = 145
# Against it: a fetch's request.
FETCH_UP_BYTES: Final = 269
# Beside an order and its answer, which are the two messages of one call: headers and trailers.
ATTEND_DOWN_BYTES: Final = 145
ATTEND_UP_BYTES: Final = 300
# A TCP connection and its TLS handshake, once for each request that a device carries out.
CONNECTION_UP_BYTES: Final = 2_730
CONNECTION_DOWN_BYTES: Final = 3_040

# Flower's exchange of a request and its answer: the poll that brings it, the objects it is made of,
# each called for by itself, receipts, the answer's objects likewise, and the poll behind it. The
# answer takes a connection of its own: the request's has gone after 5 s idle, which starting the
# ClientApp takes. Where it starts quicker that connection is spared.
REQUEST_BYTES: Final = 7_700
RESPONSE_BYTES: Final = 15_200
SPARED_DOWN_BYTES: Final = 2_900
SPARED_UP_BYTES: Final = 2_000
# The first exchange of a run: what it is, and the frame round the application's bundle.
JOIN_DOWN_BYTES: Final = 2_400
JOIN_UP_BYTES: Final = 3_100
# While a node waits it asks every 3 s. While it works it does not; either way it says about every
# 24 s that it lives, over a new connection where it works. An exchange has 12 s of that in it.
WAIT_UP_BYTES_PER_S: Final = 414.0
WAIT_DOWN_BYTES_PER_S: Final = 110.0
WORK_UP_BYTES_PER_S: Final = 110.0
WORK_DOWN_BYTES_PER_S: Final = 97.0
EXCHANGE_S: Final = 12.0
# Idle connections are given up after 5 s; about 1.5 s of an exchange are its own calls, and up to 3
# go by until the node asks.
_IDLE_LIMIT_S: Final = 5.0
_CALLS_S: Final = 1.5
_POLL_S: Final = 3.0


def framed_bytes(message_bytes: int) -> int:
    """Bytes of a serialised gRPC message: its prefix and HTTP/2's data frame headers."""
    body = _GRPC_PREFIX_BYTES + message_bytes
    return body + _HTTP2_HEADER_BYTES * -(-body // _HTTP2_FRAME_BYTES)


def data_message_bytes(num_bytes: int) -> int:
    """The same of a chunk message with ``num_bytes`` of data, its tag and length included."""
    length_bytes = max(1, (num_bytes.bit_length() + 6) // 7)
    return framed_bytes(1 + length_bytes + num_bytes)


def stream_bytes(num_bytes: int) -> int:
    """Wire bytes of something written at once to an open TLS connection."""
    sealed = num_bytes + TLS_HEADER_BYTES * -(-num_bytes // TLS_RECORD_BYTES)
    return sealed + HEADER_BYTES * -(-sealed // SEGMENT_BYTES)


def returned_bytes(wire_bytes: int) -> int:
    """Wire bytes of the acknowledgements that so many bytes are answered with."""
    segments = wire_bytes // (SEGMENT_BYTES + HEADER_BYTES)
    return HEADER_BYTES * (segments // _ACKNOWLEDGED)


class DepotCalls:
    """Beside the payload, what one device's calls of the depot weigh in the payload's direction.

    The first pays for the connection.
    """

    def __init__(self) -> None:
        self.is_connected = False

    def fetch_bytes(self) -> int:
        """Wire bytes that come down with a fetch, whatever is fetched."""
        return FETCH_DOWN_BYTES + self._connection(CONNECTION_DOWN_BYTES)

    def push_bytes(self) -> int:
        """Wire bytes that go up with a push, whatever is pushed."""
        return PUSH_UP_BYTES + self._connection(CONNECTION_UP_BYTES)

    def _connection(self, num_bytes: int) -> int:
        fresh, self.is_connected = not self.is_connected, True
        return num_bytes if fresh else 0


def acknowledged_bytes(payload_bytes: int) -> int:
    """Wire bytes of the depot's answer to a push."""
    return PUSH_DOWN_BYTES + stream_bytes(framed_bytes(payload_bytes))


def request_bytes(payload_bytes: int) -> int:
    """Wire bytes that come down with a request, and with its answer's receipts."""
    return REQUEST_BYTES + _added_bytes(payload_bytes)


def response_bytes(payload_bytes: int) -> int:
    """Wire bytes that go up with an answer, and with the calls for its request."""
    return RESPONSE_BYTES + _added_bytes(payload_bytes)


def spared_share(exchange_s: float) -> float:
    """How likely an exchange of so many seconds needs no second connection, 0 to 1."""
    left_s = _IDLE_LIMIT_S + _CALLS_S + _POLL_S - exchange_s
    return min(1.0, max(0.0, left_s / _POLL_S))


def _added_bytes(num_bytes: int) -> int:
    """What a payload adds to an exchange: its records and segments are longer, or some more."""
    sealed = num_bytes + TLS_HEADER_BYTES * (num_bytes // TLS_RECORD_BYTES)
    return sealed + HEADER_BYTES * (sealed // SEGMENT_BYTES)
