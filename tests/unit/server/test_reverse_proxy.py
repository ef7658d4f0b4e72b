"""What of the SuperLink's one port a stranger gets to."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from graft_server.deployment.authority import Authority, create_authority
from graft_server.deployment.reverse_proxy import ReverseProxy


class Upstream(BaseHTTPRequestHandler):
    """Answers every request with its path, one header and its body."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        said = f"{self.path} {self.headers['x-signature']} ".encode() + body
        self.send_response(201)
        self.send_header("content-length", str(len(said)))
        self.send_header("x-answer", "yes")
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *words: object) -> None:
        """Quiet."""


@pytest.fixture
def upstream_port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_devices_interface_passes_whole_and_nothing_else_does(upstream_port: int) -> None:
    with ReverseProxy(upstream_port, None) as gateway:
        base = f"http://127.0.0.1:{gateway.port}"
        done = httpx.post(
            f"{base}/v1/fleet/pull-messages", content=b"\x00body", headers={"x-signature": "s1"}
        )
        assert (done.status_code, done.headers["x-answer"]) == (201, "yes")
        assert done.content == b"/v1/fleet/pull-messages s1 \x00body"
        for path in (
            "/v1/control/start-run", "/v1/runtime/pull-task-input", "/health", "/",
            "/v1/fleet/../control/start-run", "/v1/fleet/%2e%2e/control/start-run", "//v1/fleet/x",
        ):  # fmt: skip
            refused = httpx.post(f"{base}{path}", content=b"x")
            assert (refused.status_code, b"control" in refused.content) == (404, False), path


def test_a_body_beyond_the_limit_is_refused(upstream_port: int) -> None:
    with ReverseProxy(upstream_port, None) as gateway:
        done = httpx.post(
            f"http://127.0.0.1:{gateway.port}/v1/fleet/push-object", content=bytes(33 * 1024 * 1024)
        )
    assert done.status_code == 413


def test_a_superlink_that_is_not_there_is_said_so(upstream_port: int) -> None:
    with ReverseProxy(free_port(), None) as gateway:
        done = httpx.post(f"http://127.0.0.1:{gateway.port}/v1/fleet/register-node", content=b"x")
    assert (done.status_code, done.text) == (503, "no SuperLink: ConnectError")


def trusting(authority: Authority, folder: Path, name: str = "") -> ssl.SSLContext:
    """A client that trusts the deployment's authority; with a device's name it has its key."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if name:
        authority.device_identity(name).write(folder / name)
        context.load_cert_chain(folder / name / "tls.pem", folder / name / "tls.key")
    return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = create_authority(tmp_path)
    authority.server_identity(["127.0.0.1"]).write(tmp_path)
    return authority


def test_tls_is_the_deployments_own_on_both_sides(tmp_path: Path, authority: Authority) -> None:
    refused: list[str] = []
    with ReverseProxy(
        free_port(), tmp_path, allows=lambda name: name == "ann", turn_away=refused.append
    ) as gateway:
        address = f"https://127.0.0.1:{gateway.port}/v1/control/start-run"
        enrolled = httpx.post(address, content=b"", verify=trusting(authority, tmp_path, "ann"))
        assert enrolled.status_code == 404
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.post(address, content=b"")
        for name in ("", "revoked"):
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError)):
                httpx.post(address, content=b"", verify=trusting(authority, tmp_path, name))
        assert refused == ["path", "certificate"]
        assert gateway.offences() == [("ann", "path", 1), ("revoked", "certificate", 1)]
        for _ in range(3):
            httpx.post(address, content=b"", verify=trusting(authority, tmp_path, "ann"))
        assert gateway.offences() == [("ann", "path", 4)]
        httpx.post(address, content=b"", verify=trusting(authority, tmp_path, "ann"))
        assert gateway.offences() == []  # a log's lines grow with the logarithm of the offences


def test_a_renewed_certificate_is_served_at_once_and_open_connections_go_on(
    tmp_path: Path, authority: Authority
) -> None:
    with ReverseProxy(free_port(), tmp_path) as gateway:
        context = trusting(authority, tmp_path, "ann")

        def opened() -> ssl.SSLSocket:
            connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
            return context.wrap_socket(connection, server_hostname="127.0.0.1")

        with opened() as before:
            first = before.getpeercert(binary_form=True)
            authority.server_identity(["127.0.0.1"]).write(tmp_path)
            gateway.renew()
            with opened() as after:
                assert after.getpeercert(binary_form=True) != first
            before.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert before.recv(12) == b"HTTP/1.1 404"


HEAD = b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\nx-signature: s\r\n"


@pytest.mark.parametrize(
    ("said", "reason"),
    [(b"", "header"), (HEAD, "header"), (HEAD + b"content-length: 1000000\r\n\r\nxx", "body")],
)
def test_a_request_that_stays_unfinished_is_closed_however_slowly_it_goes_on(
    upstream_port: int, said: bytes, reason: str
) -> None:
    refused: list[str] = []
    with (
        ReverseProxy(
            upstream_port, None, header_s=0.3, body_s=0.3, turn_away=refused.append
        ) as gateway,
        socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client,
    ):
        client.sendall(said)
        began_s = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() < began_s + 5 and not refused:
                client.sendall(b"x")
                time.sleep(0.05)
        assert refused == [reason]
        assert time.monotonic() - began_s < 3


def test_a_connection_may_rest_between_two_requests(upstream_port: int) -> None:
    with (
        ReverseProxy(upstream_port, None, header_s=0.2, body_s=0.2) as gateway,
        httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}") as client,
    ):
        for _ in range(2):
            done = client.post("/v1/fleet/x", content=b"body", headers={"x-signature": "s"})
            assert done.status_code == 201
            time.sleep(0.5)


def test_a_body_is_passed_on_before_it_is_whole(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        port = upstream.getsockname()[1]
        with (
            ReverseProxy(port, None) as gateway,
            socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client,
        ):
            client.sendall(HEAD + b"content-length: 1000000\r\n\r\n" + bytes(300_000))
            upstream.settimeout(10)
            connection, _ = upstream.accept()
            with connection:
                connection.settimeout(10)
                received = 0
                while received < 300_000:
                    received += len(connection.recv(65536))


def test_one_device_has_a_bounded_number_of_connections(upstream_port: int) -> None:
    refused: list[str] = []
    with (
        ReverseProxy(upstream_port, None, max_per_device=2, turn_away=refused.append) as gateway,
        contextlib.ExitStack() as opened,
    ):
        for _ in range(3):
            address = ("127.0.0.1", gateway.port)
            last = opened.enter_context(socket.create_connection(address, timeout=10))
        with contextlib.suppress(ConnectionResetError):
            assert last.recv(1) == b""
        assert refused == ["device"]


class Link(Upstream):
    """A SuperLink: it has one message for whoever asks next, once ``message`` is set."""

    message = b""
    polls = 0
    refuses = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        cls, body = type(self), b""
        if self.path.endswith("pull-messages"):
            cls.polls += 1
            body, cls.message = cls.message, b""
        status = 412 if cls.refuses else 200
        cls.refuses = max(0, cls.refuses - 1)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def link_port() -> Iterator[int]:
    Link.message, Link.polls, Link.refuses = b"", 0, 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Link)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


class Named(ReverseProxy):
    """A gateway without TLS that takes every client for the device "ann"."""

    def __init__(self, port: int, **options: object) -> None:
        super().__init__(port, None, **options)  # type: ignore[arg-type]
        self.names = AnyKey()


class AnyKey(dict[tuple[str, int], str]):
    def get(self, key: object, default: object = None) -> str:  # type: ignore[override]
        return "ann"


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_a_question_for_messages_waits_until_there_is_one(link_port: int) -> None:
    calls = [0]
    with Named(link_port, called=lambda device: calls[0], hold_s=20.0) as gateway:
        url = f"http://127.0.0.1:{gateway.port}/v1/fleet/pull-messages"
        said: list[tuple[bytes, float]] = []

        def ask() -> None:
            began_s = time.monotonic()
            said.append((httpx.post(url, content=b"", timeout=30).content, began_s))

        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: Link.polls == 1)
        time.sleep(0.3)
        assert (said, Link.polls) == ([], 1)  # nothing is asked while nothing was sent
        Link.message, calls[0] = b"a message", 1
        asking.join(30)
        assert [body for body, _ in said] == [b"a message"]
        assert Link.polls == 2


def test_a_question_that_nothing_answers_is_answered_when_its_time_is_over(link_port: int) -> None:
    with Named(link_port, called=lambda device: 0, hold_s=0.5) as gateway:
        began_s = time.monotonic()
        url = f"http://127.0.0.1:{gateway.port}/v1/fleet/pull-messages"
        done = httpx.post(url, content=b"", timeout=30)
        assert (done.status_code, done.content) == (200, b"")
        assert time.monotonic() - began_s > 0.4


def test_no_message_is_handed_to_a_client_that_has_gone_or_asked_again(link_port: int) -> None:
    calls = [0]
    with Named(link_port, called=lambda device: calls[0], hold_s=20.0) as gateway:
        url = f"http://127.0.0.1:{gateway.port}/v1/fleet/pull-messages"
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, content=b"", timeout=httpx.Timeout(30, read=1.0))
        wait_until(lambda: not +gateway.connections)
        said: list[bytes] = []
        asking = [
            threading.Thread(
                target=lambda: said.append(httpx.post(url, content=b"", timeout=30).content)
            )
            for _ in range(2)
        ]
        for number, each in enumerate(asking):
            polls = Link.polls
            each.start()
            wait_until(lambda polls=polls: Link.polls > polls)  # type: ignore[misc]
            assert number or not said
        asking[0].join(30)
        assert said == [b""]
        Link.message, calls[0] = b"a message", 1
        asking[1].join(30)
        assert said == [b"", b"a message"]


def test_a_node_that_comes_too_early_is_asked_to_come_again(link_port: int) -> None:
    Link.refuses = 1
    with ReverseProxy(link_port, None) as gateway:
        base = f"http://127.0.0.1:{gateway.port}/v1/fleet"
        again, taken = (httpx.post(f"{base}/activate-node", content=b"") for _ in range(2))
        assert (again.status_code, taken.status_code) == (503, 200)
        Link.refuses = 1
        assert httpx.post(f"{base}/push-messages", content=b"").status_code == 412
