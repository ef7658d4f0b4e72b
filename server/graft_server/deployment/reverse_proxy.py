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
_POLL = "/v1/fleet/pull-messages"  # a node's question for messages
_LOOK_S = 0.1
# Flower refuses a node whose key the server is about to register, and one that comes back before it
# has noticed that it was away. The SuperNode would end over that; of a 503 it asks again.
_ACTIVATE = "/v1/fleet/activate-node"
_TOO_EARLY = range(400, 500)
# Headers of one hop, which are not forwarded.
_HOP = {"connection", "transfer-encoding", "keep-alive", "host"}


class ReverseProxy:
    """An HTTPS server at ``port`` of loopback that forwards to the SuperLink at ``upstream_port``.

    ``folder`` holds tls.key, tls.pem and ca.pem, and a client needs a certificate of that CA, for a
    name that ``allows``; None: neither side has TLS. A client has ``header_s`` for a request's
    headers, then ``body_s`` and a second more for every ``min_bytes_per_s`` bytes of its body, and
    ``max_per_device`` connections at once. ``turn_away`` gets the reason of each refusal.

    Flower's nodes ask for messages every 3 s. Where there is none the answer waits, up to
    ``hold_s``, until what ``called`` says of the device changes: a number that is another one as
    soon as a message was sent to it. Without ``called`` no answer waits.
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
        called: Callable[[str], int] | None = None,
        hold_s: float = 20.0,
    ) -> None:
        self.allows, self.turn_away = allows, turn_away
        self.header_s, self.body_s, self.min_bytes_per_s = header_s, body_s, min_bytes_per_s
        self.max_per_device = max_per_device
        self.connections: Counter[str] = Counter()
        self.names: dict[tuple[str, int], str] = {}  # devices by the client's end of a connection
        self._offences: Counter[tuple[str, str]] = Counter()
        self._told: Counter[tuple[str, str]] = Counter()
        self._called, self._hold_s = called, hold_s
        self._newest_poll: dict[str, object] = {}
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

    def connected(self) -> list[str]:
        """The devices that have a connection now."""
        return [device for device, count in self.connections.copy().items() if count > 0]

    def refuse(self, device: str, reason: str) -> None:
        """Count a refusal; ``device`` is "" where the connection has no name."""
        self.turn_away(reason)
        if device:
            self._offences[device, reason] += 1

    def offences(self) -> list[tuple[str, str, int]]:
        """(device, reason, times) where the number has doubled since it was asked for last."""
        new = [
            (device, reason, times)
            for (device, reason), times in self._offences.copy().items()
            if times >= max(1, 2 * self._told[device, reason])
        ]
        self._told.update({(d, r): times - self._told[d, r] for d, r, times in new})
        return new

    async def _forward(self, request: Request) -> Response:
        """Pass a request on, and what comes back."""
        device = self.names.get(request.client or ("", 0), "")
        if _ALLOWED.fullmatch(request.url.path) is None:
            self.refuse(device, "path")
            return Response("only devices call here", status_code=404)
        headers = [(k, v) for k, v in request.headers.items() if k not in _HOP]
        body = _limited(request.stream(), request.headers.get("content-length", "0"))
        try:
            if request.url.path == _POLL and self._called is not None and device:
                return await self._hold(request, headers, body, device, self._called)
            return await self._pass(request, headers, body)
        except _TooLargeError:
            self.refuse(device, "size")
            return Response("too large", status_code=413)
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody reads
        except httpx.HTTPError as error:  # the SuperLink is starting again
            return Response(f"no SuperLink: {type(error).__name__}", status_code=503)

    async def _pass(
        self, request: Request, headers: list[tuple[str, str]], body: AsyncIterator[bytes]
    ) -> Response:
        """Both bodies pass in pieces: what is in memory is a few of them."""
        forwarded = self._client.build_request(
            request.method, request.url.path, content=body, headers=headers
        )
        response = await self._client.send(forwarded, stream=True)
        if request.url.path == _ACTIVATE and response.status_code in _TOO_EARLY:
            await response.aclose()
            return Response("not yet", status_code=503)
        return StreamingResponse(
            response.aiter_raw(),
            status_code=response.status_code,
            headers={k: v for k, v in response.headers.items() if k not in _HOP},
            background=BackgroundTask(response.aclose),
        )

    async def _hold(
        self,
        request: Request,
        headers: list[tuple[str, str]],
        body: AsyncIterator[bytes],
        device: str,
        called: Callable[[str], int],
    ) -> Response:
        """Answer a node's question for messages once there is one, or its time is over."""
        content = b"".join([piece async for piece in body])
        poll = self._newest_poll[device] = object()
        until_s = time.monotonic() + self._hold_s
        while True:
            before = called(device)
            answer = await self._client.post(_POLL, content=content, headers=headers)
            while called(device) == before and time.monotonic() < until_s:
                # A message that is handed to a client that has gone, or has asked again, is lost.
                if answer.content or answer.is_error or self._newest_poll.get(device) is not poll:
                    break
                if await request.is_disconnected():
                    raise ClientDisconnect
                await asyncio.sleep(_LOOK_S)
            else:
                if not answer.content and answer.is_success and time.monotonic() < until_s:
                    continue
            kept = {k: v for k, v in answer.headers.items() if k not in _HOP}
            return Response(answer.content, status_code=answer.status_code, headers=kept)


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
        if self.client:
            self._proxy.names[self.client] = self._device
        if not self._proxy.allows(self._device):
            self._refuse("certificate")
        elif self._proxy.connections[self._device] > self._proxy.max_per_device:
            self._refuse("device")
        else:
            self._wait("header", self._proxy.header_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._proxy.connections[self._device] -= 1
        self._proxy.names.pop(self.client or ("", 0), None)
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
        self._proxy.refuse(self._device, reason)
        self.transport.abort()


def _peer_name(transport: asyncio.Transport) -> str:
    """The common name of a client's certificate, which the CA has signed; "" without TLS."""
    certificate = (transport.get_extra_info("peercert") or {}).get("subject", ())
    names = [value for part in certificate for key, value in part if key == "commonName"]
    return str(names[0]) if names else ""
