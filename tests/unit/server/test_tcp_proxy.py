"""The TCP proxy passes bytes on as they are, counts them, and lets go of whoever is gone."""

import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from graft_server.deployment.tcp_proxy import TcpProxy

from graft.errors import ProxyError, RunError
from graft.wire.traffic_log import (
    TrafficCounters,
    TrafficLog,
    TrafficRecord,
    read_traffic_log,
    total_traffic,
)

HOST = "127.0.0.1"
Lines = list[TrafficRecord]


@contextmanager
def served(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server on loopback, one connection after another."""
    with socket.create_server((HOST, 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield f"{HOST}:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def echo_all(connection: socket.socket) -> None:
    """Response with all that came, once the client has said all."""
    said = b""
    while data := connection.recv(65536):
        said += data
    connection.sendall(said)


def relay_to(upstream: str, lines: Lines, **settings: object) -> TcpProxy:
    return TcpProxy(f"{HOST}:0", upstream, service="depot", record=lines.append, **settings)


def connected(relay: TcpProxy) -> socket.socket:
    return socket.create_connection((HOST, relay.port), timeout=10)


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def wait_for(law: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not law() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert law()


def test_a_half_closed_client_still_hears_the_answer_and_both_ways_are_counted() -> None:
    lines: Lines = []
    said = bytes(range(256)) * 4000
    with (
        served(echo_all) as upstream,
        relay_to(upstream, lines) as relay,
        connected(relay) as client,
    ):
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == said
    carried = total_traffic(lines)
    assert {(line.peer, line.service) for line in lines} == {(HOST, "depot")}
    # 66 bytes of headers a segment; a SYN's own options and a FIN's place in the order of bytes.
    assert carried.up_bytes == len(said) + 66 * carried.up_segments + 8 + 1
    assert carried.down_bytes == len(said) + 66 * carried.down_segments + 8
    assert min(carried.up_segments, carried.down_segments) >= 4  # SYN, data, ACK, FIN


def test_lines_tell_of_intervals_that_follow_each_other() -> None:
    lines: Lines = []
    with served(echo_all) as upstream, relay_to(upstream, lines, interval_s=0.02) as relay:
        for _ in range(3):
            with connected(relay) as client:
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
                read_all(client)
            time.sleep(0.06)
        wait_for(lambda: len(lines) >= 3)
        quiet = len(lines)
        time.sleep(0.1)
        assert len(lines) == quiet  # nothing carried, nothing written
    assert all(line.since_s < line.until_s for line in lines)
    assert all(a.until_s <= b.since_s for a, b in pairwise(lines))


def test_a_slow_reader_holds_up_the_writer_and_not_the_relays_memory() -> None:
    """300 MB through a TCP proxy of Python objects that never grow by a hundredth of it."""
    size, chunk = 300_000_000, bytes(1_000_000)
    lines: Lines = []

    def pour(connection: socket.socket) -> None:
        for _ in range(size // len(chunk)):
            connection.sendall(chunk)

    with served(pour) as upstream, relay_to(upstream, lines) as relay, connected(relay) as client:
        time.sleep(0.5)  # nobody reads: the sockets' own buffers fill, and that is all
        buffer = bytearray(1 << 20)
        tracemalloc.start()
        got = 0
        while num_bytes := client.recv_into(buffer):
            got += num_bytes
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert got == size
    assert peak < 3_000_000
    assert total_traffic(lines).down_bytes > size


def test_without_its_upstream_a_client_is_closed_cleanly() -> None:
    lines: Lines = []
    with socket.create_server((HOST, 0)) as gone:
        port = gone.getsockname()[1]
    turned_away: list[str] = []
    with relay_to(f"{HOST}:{port}", lines, turn_away=turned_away.append) as relay:
        with connected(relay) as client:
            client.sendall(b"anyone?")
            assert client.recv(1) == b""  # an end, and no reset
        assert turned_away == ["upstream"]
    assert total_traffic(lines).up_bytes > 0


def test_an_upstream_that_breaks_off_resets_the_client() -> None:
    def break_off(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with served(break_off) as upstream, relay_to(upstream, []) as relay, connected(relay) as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.parametrize(
    ("limit", "reason"), [("max_connections", "connections"), ("max_per_address", "address")]
)
def test_beyond_its_limit_a_client_is_turned_away_and_then_let_in(limit: str, reason: str) -> None:
    turned_away: list[str] = []
    limits = {limit: 1, "turn_away": turned_away.append}
    with served(echo_all) as upstream, relay_to(upstream, [], **limits) as relay:
        with connected(relay) as first:
            first.sendall(b"1")
            with connected(relay) as second, suppress(ConnectionResetError):
                assert second.recv(1) == b""
            wait_for(lambda: turned_away == [reason])
            first.shutdown(socket.SHUT_WR)
            assert read_all(first) == b"1"
        wait_for(lambda: not relay._connections)
        with connected(relay) as third:
            third.shutdown(socket.SHUT_WR)
            assert read_all(third) == b""


def test_connections_that_say_nothing_are_closed_and_the_others_are_served() -> None:
    turned_away: list[str] = []
    limits = {"silent_s": 0.2, "max_connections": 6, "turn_away": turned_away.append}

    def answer(connection: socket.socket) -> None:
        def echo(own: socket.socket) -> None:
            with own, suppress(OSError):
                echo_all(own)

        threading.Thread(target=echo, args=[connection.dup()], daemon=True).start()

    with served(answer) as upstream, relay_to(upstream, [], **limits) as relay:
        silent = [connected(relay) for _ in range(6)]
        wait_for(lambda: turned_away == 6 * ["silent"])
        for each in silent:
            with each, suppress(ConnectionResetError):
                assert each.recv(1) == b""
        wait_for(lambda: not relay._connections)
        with connected(relay) as client:
            client.sendall(b"x")
            time.sleep(0.4)  # one that has said something may be silent for longer
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"x"


def test_closing_cuts_what_is_connected_and_counts_it() -> None:
    lines: Lines = []
    with served(echo_all) as upstream:
        relay = relay_to(upstream, lines, interval_s=60.0)
        relay.start()
        with connected(relay) as client:
            client.sendall(b"x" * 1000)
            wait_for(lambda: len(relay._connections) == 1)
            time.sleep(0.1)
            relay.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    assert total_traffic(lines).up_bytes > 1000


def test_a_port_in_use_and_an_address_that_is_none_are_typed_errors() -> None:
    with socket.create_server((HOST, 0)) as taken:
        address = f"{HOST}:{taken.getsockname()[1]}"
        with pytest.raises(ProxyError, match="cannot listen"):
            TcpProxy(address, f"{HOST}:1", service="depot", record=print)
    for wrong in ("nonsense", "127.0.0.1:", "no.such.host.invalid:1"):
        with pytest.raises(ProxyError, match="address"):
            TcpProxy(wrong, f"{HOST}:1", service="depot", record=print)


def test_a_meter_that_fails_does_not_cut_devices_off_and_is_told_on_closing() -> None:
    def full(line: TrafficRecord) -> None:
        raise RunError("disk full")

    with served(echo_all) as upstream:
        relay = TcpProxy(f"{HOST}:0", upstream, service="depot", record=full, interval_s=0.02)
        relay.start()
        for _ in range(2):
            with connected(relay) as client:
                client.sendall(b"x")
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == b"x"
            time.sleep(0.05)
        with pytest.raises(ProxyError, match="disk full"):
            relay.close()


def test_a_server_without_the_metering_package_serves_and_counts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "graft_server.metering.tcp_meter", raising=False)
    monkeypatch.setitem(sys.modules, "graft_server.metering", None)
    lines: Lines = []
    with (
        served(echo_all) as upstream,
        relay_to(upstream, lines) as relay,
        connected(relay) as client,
    ):
        client.sendall(b"said")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"said"
    assert lines == []


def test_lines_come_back_from_a_file_whose_last_one_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "wire.jsonl"
    line = TrafficRecord(
        since_s=1.0,
        until_s=1.5,
        peer="10.0.0.1",
        service="flower",
        carried=TrafficCounters(up_bytes=1, down_bytes=2, up_segments=3, down_segments=4),
    )
    meter = TrafficLog(path)
    meter.write(line)
    meter.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert read_traffic_log(path) == [line]
    TrafficLog(path).write(line)
    assert read_traffic_log(path) == [line, line]
    path.write_bytes(b'{"since_s": 1}\n')
    with pytest.raises(RunError, match="line 1"):
        read_traffic_log(path)
