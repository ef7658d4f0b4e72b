"""The web application of the operator's page: read-only, same-origin, nothing from elsewhere."""

import asyncio
import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graft.core.files import make_folder
from graft.core.text import printable
from graft.errors import missing_extra
from graft.report.formatting import bytes_text, percent_text
from graft_server.page.facts import FactsReader
from graft_server.page.login import Login

_FILES: Final = {"page.css": "text/css", "page.js": "text/javascript"}
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_READ_EVERY_S: Final = 1.0
_REPORT_LIMIT_S: Final = 600.0


def page_app(
    server: Path,
    *,
    hosts: Sequence[str],
    login: Login | None,
    depot: Callable[[], bool],
    runs: Sequence[Path] = (),
) -> Starlette:
    """The application.

    Parameters
    ----------
    server : Path
        The server's folder; the page writes rendered reports to its ``state/reports`` alone.
    hosts : sequence of str
        The names and addresses under which the page may be called, without ports: another
        ``Host`` is refused, so that no foreign name can be pointed at it.
    login : Login or None
        Who may read it; None: everybody who can connect.
    depot : callable
        Asks the depot whether it serves.
    runs : sequence of Path
        More folders that hold run folders.
    """
    page = _Page(server, FactsReader(server, tuple(runs), depot))
    middleware = [
        Middleware(_SafeHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=[*hosts], www_redirect=False),
    ]
    if login is not None:
        middleware.append(Middleware(_Behind, login=login))
    return Starlette(
        routes=[
            Route("/", page.whole),
            Route("/live", page.live),
            Route("/report/{name}", page.report),
            Route("/files/{name}", _file),
        ],
        middleware=middleware,
    )


class _Page:
    def __init__(self, server: Path, facts: FactsReader) -> None:
        self._server, self._facts = server, facts
        self._reading, self._rendering = asyncio.Lock(), asyncio.Lock()
        self._live: tuple[float, str] | None = None

    async def whole(self, request: Request) -> Response:
        """The page, with the present state in it."""
        from markupsafe import Markup

        live = Markup(await self._now())  # noqa: S704 - a template that escapes has made it
        return HTMLResponse(_template("page.html.j2").render(live=live))

    async def live(self, request: Request) -> Response:
        """The present state alone; 304 where the browser has it."""
        live = await self._now()
        tag = f'"{hashlib.sha256(live.encode()).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        return HTMLResponse(live, headers={"etag": tag})

    async def report(self, request: Request) -> Response:
        """The report of a run, rendered when its tables are newer."""
        name = request.path_params["name"]
        folder = (await asyncio.to_thread(self._facts.run_folders)).get(name)
        if folder is None:
            raise HTTPException(404, "no finished run of this name")
        out = self._server / "state" / "reports" / f"{name}.html"
        async with self._rendering:
            text = await asyncio.to_thread(_rendered, folder, out)
        if text is None:
            raise HTTPException(500, "the report could not be written; graft report says why")
        return HTMLResponse(text, headers={"content-security-policy": _report_policy(text)})

    async def _now(self) -> str:
        """The state as HTML; read once a second at most, however many look."""
        async with self._reading:
            now_s = asyncio.get_running_loop().time()
            if self._live is None or now_s - self._live[0] >= _READ_EVERY_S:
                facts = await asyncio.to_thread(self._facts.read)
                self._live = now_s, _template("live.html.j2").render(facts=facts)
            return self._live[1]


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _FILES:
        raise HTTPException(404)
    text = (resources.files("graft_server.page") / "files" / name).read_text("utf-8")
    if name == "page.css":  # the report's look, and a few rules more
        text = (resources.files("graft.report.page") / "style.css").read_text("utf-8") + text
    return Response(text, media_type=_FILES[name])


class _SafeHeaders:
    """Sets the page's headers on every response, errors too; refuses to do anything but read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app = self._app
        if scope["method"] not in ("GET", "HEAD"):
            app = Response("the page changes nothing", status_code=405, headers={"allow": "GET"})
        await app(scope, receive, guarded)


class _Behind:
    """Lets nobody through without the operator's login."""

    def __init__(self, app: ASGIApp, login: Login) -> None:
        self._app, self._login = app, login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            header = Headers(scope=scope).get("authorization", "")
            if not await self._login.admits(header):
                challenge = {"www-authenticate": 'Basic realm="graft", charset="UTF-8"'}
                app = Response("the operator's login is wanted", 401, headers=challenge)
        await app(scope, receive, send)


def _rendered(folder: Path, out: Path) -> str | None:
    """The report's text; it is written by a process of its own, which takes torch along."""
    tables = [folder / "results.parquet", folder / "ledger.parquet", folder / "run.toml"]
    newest_ns = max(path.stat().st_mtime_ns for path in tables if path.exists())
    if not out.exists() or out.stat().st_mtime_ns < newest_ns:
        make_folder(out.parent, private=True)
        command = [sys.executable, "-P", "-m", "graft_origin", "report", str(folder)]
        done = subprocess.run(  # noqa: S603
            [*command, "--out", str(out)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_REPORT_LIMIT_S,
            check=False,
        )
        if done.returncode != 0:
            return None
    return out.read_text("utf-8")


def _report_policy(text: str) -> str:
    """The policy of a report: its own scripts alone, by their hashes, in an origin of its own."""
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = [f"'sha256-{base64.b64encode(each).decode()}'" for each in digests] or ["'none'"]
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {' '.join(allowed)}; "
        "img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
        "sandbox allow-scripts"
    )


@cache
def _template(name: str) -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise missing_extra("jinja2", "server") from error
    environment = Environment(
        loader=PackageLoader("graft_server.page", "files"),
        autoescape=True,  # names and errors are words of devices
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {"bytes": bytes_text, "percent": percent_text}
    return environment.get_template(name)
