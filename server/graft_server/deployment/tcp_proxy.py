"""A TCP proxy before a server that listens on loopback: limits, and a meter where one is installed.

TLS passes through untouched: the TCP proxy sees bytes and segments, never a message.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final, Protocol

from graft.core.ports import Clock
from graft.errors import ProxyError
from graft.wire.traffic_log import TrafficRecord

log = logging.getLogger("graft")
_BUFFER_BYTES: Final = 64 * 1024
_BACKLOG: Final = 128
_LINGER_POLL_S: Final = 0.02
# A peer that vanished without closing is noticed after two minutes, idle or not.
_KEEP_ALIVE: Final = {
    "TCP_KEEPIDLE": 60,
    "TCP_KEEPINTVL": 15,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": 120_000,
}


class Meter(Protocol):
    """What counts a proxy's connections; ``PeerMeter`` does, of the optional metering package."""

    broken: Exception | None

    def counting(self, client: socket.socket) -> AbstractContextManager[None]: ...

    def is_over(self, client: socket.socket) -> bool: ...

    def write(self) -> None: ...


class _NoMeter:
    """Counts nothing."""

    broken: Exception | None = None

    def counting(self, client: socket.socket) -> AbstractContextManager[None]:
        return nullcontext()

    def is_over(self, client: socket.socket) -> bool:
        return True

    def write(self) -> None:
        pass


def open_meter(service: str, record: Callable[[TrafficRecord], None], clock: Clock) -> Meter:
    """The meter, which is the only use of the metering package; without it nothing is counted."""
    try:
        from graft_server.metering.tcp_meter import PeerMeter
    except ModuleNotFoundError:
        log.warning("%s: no metering package is installed, traffic is not counted", service)
        return _NoMeter()
    return PeerMeter(service, record, clock)


class TcpProxy:
    """Forwards connections from ``listen`` to ``upstream`` (each "host:port") and counts them.

    ``listen`` "*:port" is every IPv4 and, where the system has it, every IPv6 address.
    ``record`` gets a line every ``interval_s`` for each peer with traffic, and the rest on closing;
    it is called in the proxy's own thread (``TrafficLog.write`` will do). A direction buffers at
    most 64 KiB: a slow reader slows its writer down. A client beyond ``max_connections``, or
    ``max_per_address`` of its own address, is turned away; a connection on which no byte passes
    for its first ``silent_s``, or whose upstream does not answer within ``connect_timeout_s``, is
    closed. ``turn_away`` gets the reason each time. After both ends have closed, a connection is
    watched for up to ``linger_s`` until its last segment is counted. ``clock`` gives Unix time.
    Raises ProxyError where it cannot listen, and from ``close`` where ``record`` failed.
    """

    def __init__(
        self,
        listen: str,
        upstream: str,
        *,
        service: str,
        record: Callable[[TrafficRecord], None],
        interval_s: float = 0.2,
        max_connections: int = 1024,
        max_per_address: int = 256,
        silent_s: float = 10.0,
        connect_timeout_s: float = 5.0,
        linger_s: float = 30.0,
        clock: Clock = time.time,
        turn_away: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._upstream = _resolved(upstream)
        self._meter = open_meter(service, record, clock)
        self._interval_s = interval_s
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._silent_s = silent_s
        self._turn_away = turn_away
        self._by_address: Counter[str] = Counter()
        self._connect_timeout_s = connect_timeout_s
        self._linger_s = linger_s
        try:
            self._listeners = _listeners(listen)
        except OSError as error:
            raise ProxyError(
                f"TCP proxy of {service}: cannot listen on {listen}: {error}"
            ) from error
        # A kernel that counts too little is refused now.
        self._meter.is_over(self._listeners[0])
        self.port: int = self._listeners[0].getsockname()[1]
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"relay-{service}", daemon=True)

    def __enter__(self) -> "TcpProxy":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Accept connections from now on."""
        self._thread.start()

    def close(self) -> None:
        """Close all connections and write the last lines; ProxyError where ``record`` failed."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        if not self._loop.is_closed():
            self._loop.close()
        for listener in self._listeners:
            listener.close()
        if self._meter.broken is not None:
            raise ProxyError(f"TCP proxy: its meter failed: {self._meter.broken}")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        accepting = [asyncio.create_task(self._accept(each)) for each in self._listeners]
        try:
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), self._interval_s)
                self._meter.write()
        finally:
            tasks = [*accepting, *self._connections]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._meter.write()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, (address, *_) = await self._loop.sock_accept(listener)
            except OSError:  # out of descriptors, or the client has already gone
                await asyncio.sleep(0.1)
                continue
            refusal = ""
            if len(self._connections) >= self._max_connections:
                refusal = "connections"
            elif self._by_address[address] >= self._max_per_address:
                refusal = "address"
            self._by_address[address] += 1
            task = asyncio.create_task(self._forward(client, refusal))
            self._connections.add(task)
            task.add_done_callback(partial(self._forget, address))

    def _forget(self, address: str, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    async def _forward(self, client: socket.socket, refusal: str) -> None:
        """One client's connection from its first byte to its last segment."""
        with contextlib.suppress(OSError), _closing(client), self._meter.counting(client):
            client.setblocking(False)
            if refusal:
                self._turn_away(refusal)  # and not watched to its end: there may be many
                return
            _keep_alive(client)
            upstream = await self._connected()
            if upstream is None:
                self._turn_away("upstream")
                client.shutdown(socket.SHUT_RDWR)
            else:
                with _closing(upstream):
                    await self._forward_both(client, upstream)
            await self._last_segment(client)

    async def _connected(self) -> socket.socket | None:
        family, address = self._upstream
        upstream = socket.socket(family, socket.SOCK_STREAM)
        try:
            upstream.setblocking(False)
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connecting = self._loop.sock_connect(upstream, address)
            await asyncio.wait_for(connecting, self._connect_timeout_s)
        except (OSError, TimeoutError):
            upstream.close()
            return None
        except BaseException:
            upstream.close()
            raise
        return upstream

    async def _forward_both(self, client: socket.socket, upstream: socket.socket) -> None:
        """Forward both directions until each has ended; an error in one ends the other."""
        begun = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(client, upstream, begun))
                both.create_task(self._pump(upstream, client, begun))
                try:
                    await asyncio.wait_for(begun.wait(), self._silent_s)
                except TimeoutError as error:
                    self._turn_away("silent")
                    raise OSError("nothing was said") from error
        except* OSError as broken:
            raise OSError("a side broke off") from broken

    async def _pump(self, source: socket.socket, sink: socket.socket, begun: asyncio.Event) -> None:
        view = memoryview(bytearray(_BUFFER_BYTES))
        while num_bytes := await self._loop.sock_recv_into(source, view):
            begun.set()
            await self._loop.sock_sendall(sink, view[:num_bytes])
        begun.set()
        sink.shutdown(socket.SHUT_WR)  # the other direction may go on

    async def _last_segment(self, client: socket.socket) -> None:
        deadline_s = self._loop.time() + self._linger_s
        while not self._meter.is_over(client) and self._loop.time() < deadline_s:
            await asyncio.sleep(_LINGER_POLL_S)


@contextlib.contextmanager
def _closing(connection: socket.socket) -> Iterator[None]:
    """Close the connection as the block is left; with a reset where an error left it."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise
    finally:
        connection.close()


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _listeners(listen: str) -> list[socket.socket]:
    """Listening sockets at "host:port"; raises OSError for a port that is taken."""
    host, _, port = listen.rpartition(":")
    family, address = _resolved(f"0.0.0.0:{port}" if host == "*" else listen)
    found = [socket.create_server(address[:2], family=family, backlog=_BACKLOG)]
    if host == "*" and socket.has_dualstack_ipv6():
        six = ("::", found[0].getsockname()[1])
        try:
            found.append(socket.create_server(six, family=socket.AF_INET6, backlog=_BACKLOG))
        except OSError as error:
            # Without addresses of IPv6 there is nobody who could call there.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                found[0].close()
                raise
    for listener in found:
        listener.setblocking(False)
    return found


def _resolved(address: str) -> tuple[socket.AddressFamily, Any]:
    """Family and socket address of "host:port"; raises ProxyError where there is none."""
    host, colon, port = address.rpartition(":")
    try:
        if not colon or not port.isdigit():
            raise OSError("wanted host:port")
        addresses = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise ProxyError(f"TCP proxy: address {address!r}: {error}") from error
    family, _, _, _, resolved = addresses[0]
    return family, resolved
