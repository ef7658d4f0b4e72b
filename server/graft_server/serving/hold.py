"""Whether a server serves by itself, and how a command has it pause.

state/serving.lock is held by the ServerApp that serves, state/hold.lock by the command that wants
no domain to be begun with, and state/expansion.lock while any round runs.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from graft.core.files import lock_file, replace_file
from graft.errors import RunError

SERVING: Final = "state/serving.lock"
_HOLD: Final = "state/hold.lock"
_EXPANSION: Final = "state/expansion.lock"
_WAITS: Final = "state/waits.json"
_HOLD_WAIT_S: Final = 30.0
_DRAIN_S: Final = 24 * 3600.0


def is_serving(server: Path) -> bool:
    """Whether a ServerApp serves domains as they come."""
    return _is_locked(server / SERVING)


def is_held(server: Path) -> bool:
    """Whether a command wants no domain to be begun with."""
    return _is_locked(server / _HOLD)


def write_waits(
    server: Path, join_timeout_s: float, patience_s: float, answer_s: float | None
) -> None:
    """How long the rounds that a command plans wait for devices; a server that serves runs them."""
    waits = {"join-timeout-s": join_timeout_s, "patience-s": patience_s}
    waits |= {} if answer_s is None else {"answer-s": answer_s}
    replace_file(server / _WAITS, json.dumps(waits).encode())


def read_waits(server: Path) -> Mapping[str, float]:
    """What ``write_waits`` wrote; nothing where it wrote nothing."""
    try:
        waits: dict[str, float] = json.loads((server / _WAITS).read_text("utf-8"))
        return waits
    except (OSError, ValueError):
        return {}


@contextmanager
def serving_paused(server: Path, announce: Callable[[str], None]) -> Iterator[None]:
    """No domain is served by itself within the block; those that are served now are waited for."""
    if not (server / "server.toml").exists():  # the command says so, and nothing is written
        yield
        return
    with lock_file(server / _HOLD, str(server), wait_s=_HOLD_WAIT_S):
        if is_serving(server):
            if _is_locked(server / _EXPANSION):
                announce("waiting for the domains that are being served")
            with lock_file(server / _EXPANSION, str(server), wait_s=_DRAIN_S):
                pass
        yield


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with lock_file(path, str(path)):
            return False
    except RunError:
        return True
