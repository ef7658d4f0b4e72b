"""What of the SuperLink's one port a stranger gets to."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from graft_server.deployment.authority import create_authority
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


def test_tls_is_the_deployments_own(tmp_path: Path) -> None:
    authority = create_authority(tmp_path)
    authority.server_identity(["127.0.0.1"]).write(tmp_path)
    with ReverseProxy(free_port(), tmp_path) as gateway:
        address = f"https://127.0.0.1:{gateway.port}/v1/control/start-run"
        trusting = httpx.post(address, content=b"", verify=str(tmp_path / "ca.pem"))
        assert trusting.status_code == 404
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.post(address, content=b"")
