"""Headless Chromium over its debugging pipe: open a page, press keys, look, measure."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One page of a Chromium that was started for it alone."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out = os.fdopen(to_browser, "wb", buffering=0)
        self._in = os.fdopen(from_browser, "rb")
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Ask one thing of the page; raises RuntimeError where it refuses."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": arguments}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while (response := self._read()).get("id") != self._number:
            pass
        if "error" in response:
            raise RuntimeError(f"{method}: {response['error']}")
        result: dict[str, Any] = response["result"]
        return result

    def open(self, address: str) -> None:
        """Load a page to its end."""
        self.call("Page.navigate", url=address)
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript on the page; raises RuntimeError where it throws."""
        response = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in response:
            raise RuntimeError(f"{expression}: {response['exceptionDetails']}")
        return response["result"].get("value")

    def look_as(
        self,
        width: int,
        height: int,
        *,
        scheme: str = "light",
        phone: bool = False,
        medium: str = "screen",
    ) -> None:
        """The window's size in CSS pixels, its medium, and whether it prefers light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=phone,
        )  # fmt: skip
        self.call(
            "Emulation.setEmulatedMedia",
            media=medium,
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def press(self, key: str) -> None:
        """One key, e.g. "Tab" or "Enter"."""
        text = {"Enter": "\r"}.get(key, "")
        code = {"Tab": 9, "Enter": 13}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )  # fmt: skip

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """What the window shows, or the ``whole`` page, in the format of the file's name."""
        kind = path.suffix.removeprefix(".")
        quality = {} if kind == "png" else {"quality": 60}
        shot = self.call(
            "Page.captureScreenshot", format=kind, captureBeyondViewport=whole, **quality
        )
        path.write_bytes(base64.b64decode(shot["data"]))

    def _read(self) -> dict[str, Any]:
        text = bytearray()
        while (sign := self._in.read(1)) != b"\0":
            if not sign:
                raise RuntimeError("the browser went away")
            text += sign
        message: dict[str, Any] = json.loads(text)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A Chromium of its own, gone with the block; raises FileNotFoundError where there is none."""
    command = shutil.which("chromium") or shutil.which("google-chrome")
    if command is None:
        raise FileNotFoundError("chromium: got none on the path, wanted Chromium or Chrome")
    read_end, to_browser = os.pipe()
    from_browser, write_end = os.pipe()

    def place() -> None:
        # Chromium reads commands at 3 and answers at 4; copies above keep either from hiding the
        # other.
        reads, writes = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read_end, write_end))
        os.dup2(reads, 3)
        os.dup2(writes, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        process = subprocess.Popen(
            [command, *_FLAGS, f"--user-data-dir={own}"],
            close_fds=False,
            preexec_fn=place,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_end)
        os.close(write_end)
        try:
            yield Browser(to_browser, from_browser)
        finally:
            process.terminate()
            process.wait()
