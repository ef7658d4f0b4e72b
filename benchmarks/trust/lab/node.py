"""One machine of the laboratory: a process that holds namespaces of its own."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

# Whoever made the laboratory may be killed at any moment. Then the kernel kills the holder, with
# it the first process of its process namespace, with that all others there; and the network
# namespace goes with its last process. Nothing stays behind.
_HOLDER = (
    "setpriv", "--pdeathsig", "KILL",
    "unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc",
    "sleep", "infinity",
)  # fmt: skip
_READY_S = 10.0


class Node:
    """A machine with its own network, processes and loopback; ``address`` is its IPv4 address.

    Made in a thread, it lives no longer than that thread.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._holder = subprocess.Popen(_HOLDER, start_new_session=True)
        self.pid = self._inner_pid()
        self.configure("ip", "link", "set", "lo", "up")

    @property
    def network(self) -> Path:
        """The network namespace as a file."""
        return Path(f"/proc/{self.pid}/ns/net")

    def configure(self, *words: str, batch: str | None = None) -> str:
        """Run a tool on this machine's network, its ``batch`` as standard input; what it says.

        Raises CalledProcessError.
        """
        command = ["nsenter", "--target", str(self.pid), "--net", "--", *words]
        done = subprocess.run(command, input=batch, capture_output=True, text=True, check=False)
        if done.returncode:
            raise subprocess.CalledProcessError(
                done.returncode, f"{command}: {done.stderr.strip()}"
            )
        return done.stdout

    def spawn(self, words: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process on this machine, in this working directory; it ends with the machine.

        What is returned stands for it: its input, output and status are the process's, but a
        signal must go through ``stop``.
        """
        enter = ["nsenter", "--target", str(self.pid), "--net", "--pid", "--mount"]
        command = [*enter, f"--wd={os.getcwd()}", "--", *words]
        return subprocess.Popen(command, start_new_session=True, **options)

    def close(self) -> None:
        """Kill all that runs here; the network goes with it."""
        self._holder.kill()
        self._holder.wait()

    def _inner_pid(self) -> int:
        outer, deadline_s = self._holder.pid, time.monotonic() + _READY_S
        children = Path(f"/proc/{outer}/task/{outer}/children")
        while time.monotonic() < deadline_s and self._holder.poll() is None:
            words = children.read_text("ascii").split()
            if words and Path(f"/proc/{words[0]}/comm").read_text("ascii") == "sleep\n":
                return int(words[0])
            time.sleep(0.005)
        self.close()
        raise RuntimeError(f"machine {self.name}: no namespaces within {_READY_S:.0f} s")


def stop(process: subprocess.Popen[Any], *, patience_s: float = 5.0) -> int:
    """End a spawned process and its children, by force after ``patience_s``; its exit status."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            # Not the process itself: it only stands for what it started on the machine, and
            # tells how that ended.
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
    return process.wait()
