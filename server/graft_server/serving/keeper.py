"""Keeps the ServerApp that serves running, from the server's process."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from graft.core.files import replace_file
from graft.errors import GraftError
from graft_server.flower.superlink import SuperLink
from graft_server.serving.hold import is_serving
from graft_server.serving.policy import read_policy

_START_S: Final = 60.0  # a ServerApp imports torch first
_LONGEST_WAIT_S: Final = 300.0
_STEADY_S: Final = 600.0


class ServingKeeper:
    """Starts the run that serves, and again when it has ended, with waits that double."""

    def __init__(
        self,
        superlink: SuperLink,
        announce: Callable[[str], None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._superlink = superlink
        self._server: Path = superlink.folder
        self._announce = announce
        self._clock_s = clock_s
        self._due_s = 0.0
        self._wait_s = _START_S
        self._since_s: float | None = None

    def look(self) -> None:
        """Start the run where none serves and its wait is over; GraftError where Flower cannot."""
        now_s = self._clock_s()
        if is_serving(self._server):
            self._since_s = now_s if self._since_s is None else self._since_s
            if now_s - self._since_s > _STEADY_S:
                self._wait_s = _START_S
            self._due_s = 0.0
            return
        if self._since_s is not None:
            self._announce("serving ended; it is started again")
            self._since_s = None
            self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
        if now_s < self._due_s:
            return
        self._due_s = now_s + self._wait_s
        try:
            patience_s = read_policy(self._server).patience_s
            expansion = (self._server / "expansion.toml").read_text("utf-8")
            run_id = self._superlink.start_run(expansion, _START_S, patience_s)
        except GraftError:
            self._due_s = now_s + 2.0  # the SuperLink is starting
            raise
        replace_file(self._server / "state" / "flower-run", run_id.encode())
        self._announce(f"serving domains as they come (Flower's run {run_id})")
