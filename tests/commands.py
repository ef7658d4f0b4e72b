"""The real ``graft`` command for system tests: where it is, how it is run small and quiet."""

import os
import socket
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

GRAFT = Path(sys.executable).with_name("graft")
# Small enough for a test, real in every part: five initial domains, six target domains, three methods.
SMALL = (
    "simulate", "--domains", "11", "--rounds", "2", "--set", "world.windows_per_domain=60",
    "--set", "training.max_steps=8", "--set", 'comparisons=["label-only", "average-kd-all"]',
)  # fmt: skip
LIMIT_S = 240


def quiet_environment() -> dict[str, str]:
    quiet = {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return os.environ | quiet


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {limit_s} s for {what}"
        time.sleep(0.1)


def run_facts(folder: Path) -> dict[str, object]:
    """The [run] table of a run folder."""
    return tomllib.loads((folder / "run.toml").read_text("utf-8"))["run"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
