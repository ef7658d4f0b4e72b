"""An HTTPS reverse proxy before the SuperLink: it forwards the devices' interface alone."""

import asyncio
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import h11
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from graft.errors import EdgeError

# Whole names only: a path that climbs out with dots must not match.
_ALLOWED = re.compile(r"/v1/fleet/[a-z-]+")
_MAX_BODY_BYTES = 32 * 1024 * 1024
_UPSTREAM_LIMIT_S = 60.0
_START_LIMIT_S = 10.0
_STOP_LIMIT_S = 2
# Headers of one hop, which are not forwarded.
_HOP = {"connection", "transfer-encoding", "keep-alive", "host"}


class ReverseProxy:
    """An HTTPS server at ``port`` of loopback that forwards to the SuperLink at ``upstream_port``.

    ``folder`` holds tls.key, tls.pem and ca.pem, and a client needs a certificate of that CA, for a
    name that ``allows``; None: neither side has TLS. A client has ``header_s`` for a request's
    headers, then ``body_s`` and a second more for every ``min_bytes_per_s`` bytes of its body, and
    ``max_per_device`` connections at once. ``turn_away`` gets the reason of each refusal.
    ``close``, or leaving its ``with`` block, stops it.
    """

    def __init__(
        self,
        upstream_port: int,
        folder: Path | None,
        *,
        allows: Callable[[str], bool] = lambda device: True,
        header_s: float = 10.0,
        body_s: float = 30.0,
        min_bytes_per_s: float = 8192.0,
        max_per_device: int = 32,
        turn_away: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.allows, self.turn_away = allows, turn_away
        self.header_s, self.body_s, self.min_bytes_per_s = header_s, body_s, min_bytes_per_s
        self.max_per_device = max_per_device
        self.connections: Counter[str] = Counter()
        self._folder, self._served_ns = folder, _written_ns(folder)
        self._client = httpx.AsyncClient(
            base_url=f"{'https' if folder else 'http'}://127.0.0.1:{upstream_port}",
            verify=ssl.create_default_context(cafile=folder / "ca.pem") if folder else True,
            timeout=_UPSTREAM_LIMIT_S,
            trust_env=False,
        )
        self._config = uvicorn.Config(
            Starlette(routes=[Route("/{path:path}", self._forward, methods=["GET", "POST"])]),
            http=partial(_Protocol, self),  # type: ignore[arg-type]
            ssl_keyfile=folder / "tls.key" if folder else None,
            ssl_certfile=folder / "tls.pem" if folder else None,
            ssl_ca_certs=str(folder / "ca.pem") if folder else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED,
            log_level="error",
            access_log=False,
            ws="none",
            server_header=False,
            date_header=False,  # the SuperLink has dated its answer
            timeout_keep_alive=60,
            timeout_graceful_shutdown=_STOP_LIMIT_S,
        )
        self._server = uvicorn.Server(self._config)
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        run = partial(self._server.run, sockets=[self._socket])
        self._thread = threading.Thread(target=run, name="gateway", daemon=True)

    def __enter__(self) -> "ReverseProxy":
        self._thread.start()
        until_s = time.monotonic() + _START_LIMIT_S
        while not self._server.started:
            if time.monotonic() > until_s or not self._thread.is_alive():
                raise EdgeError("reverse proxy: did not start")
            time.sleep(0.02)
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(_START_LIMIT_S)
        self._socket.close()

    def renew(self) -> None:
        """Serve a certificate that was renewed in the folder; running connections go on."""
        written_ns = _written_ns(self._folder)
        if self._folder and self._config.ssl and written_ns != self._served_ns:
            self._config.ssl.load_cert_chain(self._folder / "tls.pem", self._folder / "tls.key")
            self._served_ns = written_ns

    async def _forward(self, request: Request) -> Response:
        """Both bodies pass in pieces: what is in memory is a few of them."""
        if _ALLOWED.fullmatch(request.url.path) is None:
            self.turn_away("path")
            return Response("only devices call here", status_code=404)
        headers = [(k, v) for k, v in request.headers.items() if k not in _HOP]
        content = _limited(request.stream(), request.headers.get("content-length", "0"))
        forwarded = self._client.build_request(
            request.method, request.url.path, content=content, headers=headers
        )
        try:
            response = await self._client.send(forwarded, stream=True)
        except _TooLargeError:
            self.turn_away("size")
            return Response("too large", status_code=413)
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody reads
        except httpx.HTTPError as error:  # the SuperLink is starting again
            return Response(f"no SuperLink: {type(error).__name__}", status_code=503)
        return StreamingResponse(
            response.aiter_raw(),
            status_code=response.status_code,
            headers={k: v for k, v in response.headers.items() if k not in _HOP},
            background=BackgroundTask(response.aclose),
        )


def _written_ns(folder: Path | None) -> int:
    """When the folder's certificate was written, which its key precedes."""
    return (folder / "tls.pem").stat().st_mtime_ns if folder else 0


class _TooLargeError(Exception):
    """A body is beyond the limit."""


async def _limited(body: AsyncIterator[bytes], announced: str) -> AsyncIterator[bytes]:
    if int(announced) > _MAX_BODY_BYTES:
        raise _TooLargeError
    received = 0
    async for piece in body:
        received += len(piece)
        if received > _MAX_BODY_BYTES:
            raise _TooLargeError
        yield piece


class _Protocol(H11Protocol):
    """One connection: whose it is, and how long it may take over each request."""

    def __init__(self, proxy: ReverseProxy, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._proxy = proxy
        self._device = ""
        self._stage = ""
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._device = _peer_name(transport)
        self._proxy.connections[self._device] += 1
        if not self._proxy.allows(self._device):
            self._refuse("certificate")
        elif self._proxy.connections[self._device] > self._proxy.max_per_device:
            self._refuse("device")
        else:
            self._wait("header", self._proxy.header_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._proxy.connections[self._device] -= 1
        self._wait("", 0.0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        cycle = self.cycle
        if not self._stage:  # another request of the connection begins
            self._wait("header", self._proxy.header_s)
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY:
            if self.cycle is not cycle:
                self._wait("body", self._proxy.body_s)
            elif self._deadline is not None:
                left_s = self._deadline.when() - self.loop.time()
                self._wait("body", left_s + len(data) / self._proxy.min_bytes_per_s)
        elif self.cycle is not cycle or self._stage == "body":
            self._wait("", 0.0)  # the request is whole

    def _wait(self, stage: str, seconds: float) -> None:
        """From now on the client has so long for a part of its request; "": no part is due."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._stage = stage
        self._deadline = self.loop.call_later(seconds, self._refuse, stage) if stage else None

    def _refuse(self, reason: str) -> None:
        self._proxy.turn_away(reason)
        self.transport.abort()


def _peer_name(transport: asyncio.Transport) -> str:
    """The common name of a client's certificate, which the CA has signed; "" without TLS."""
    certificate = (transport.get_extra_info("peercert") or {}).get("subject", ())
    names = [value for part in certificate for key, value in part if key == "commonName"]
    return str(names[0]) if names else ""
