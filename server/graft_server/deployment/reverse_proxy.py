"""An HTTPS reverse proxy before the SuperLink: it forwards the devices' interface alone."""

import re
import socket
import threading
import time
from functools import partial
from pathlib import Path
from types import TracebackType

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graft.errors import EdgeError

# Whole names only: a path that climbs out with dots must not match.
_ALLOWED = re.compile(r"/v1/fleet/[a-z-]+")
_MAX_BODY_BYTES = 32 * 1024 * 1024
_UPSTREAM_LIMIT_S = 60.0
_START_LIMIT_S = 10.0
# Headers of one hop, which are not forwarded.
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "content-encoding"}


class ReverseProxy:
    """An HTTPS server at ``port`` of loopback that forwards to the SuperLink at ``upstream_port``.

    ``folder`` holds tls.key, tls.pem and ca.pem; None: neither side has TLS. ``close``, or leaving
    its ``with`` block, stops it.
    """

    def __init__(self, upstream_port: int, folder: Path | None) -> None:
        scheme = "https" if folder else "http"
        self._client = httpx.AsyncClient(
            base_url=f"{scheme}://127.0.0.1:{upstream_port}",
            verify=str(folder / "ca.pem") if folder else True,
            timeout=_UPSTREAM_LIMIT_S,
            trust_env=False,
        )
        routes = [Route("/{path:path}", self._forward, methods=["GET", "POST"])]
        config = uvicorn.Config(
            Starlette(routes=routes),
            ssl_keyfile=folder / "tls.key" if folder else None,
            ssl_certfile=folder / "tls.pem" if folder else None,
            log_level="error",
            access_log=False,
            ws="none",
            server_header=False,
            date_header=False,  # the SuperLink has dated its answer
            timeout_keep_alive=60,
        )
        self._server = uvicorn.Server(config)
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(_START_LIMIT_S)
        self._socket.close()

    async def _forward(self, request: Request) -> Response:
        if _ALLOWED.fullmatch(request.url.path) is None:
            return Response("only devices call here", status_code=404)
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _MAX_BODY_BYTES:
                return Response("too large", status_code=413)
        headers = [(k, v) for k, v in request.headers.items() if k not in _HOP and k != "host"]
        try:
            response = await self._client.request(
                request.method, request.url.path, content=bytes(body), headers=headers
            )
        except httpx.HTTPError as error:  # the SuperLink is starting again
            return Response(f"no SuperLink: {type(error).__name__}", status_code=503)
        own = {k: v for k, v in response.headers.items() if k not in _HOP}
        return Response(response.content, status_code=response.status_code, headers=own)
