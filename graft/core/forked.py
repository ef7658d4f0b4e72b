"""Processes forked from one that has imported what they need: they share its memory."""

import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

from graft.core.ending import run_process

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_FILES = 1024  # more are open in no process that forks
_LOOK_S = 0.05
# Of a child before it runs: a handler of its parent is not meant for it.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


class ForkedProcess:
    """A child that runs a function; has what a supervisor needs of ``subprocess.Popen``.

    It ends with its parent, has a process group of its own, and of the parent's open files only
    those of ``keep``. The parent must have no threads.

    Parameters
    ----------
    name
        What the system calls the process; 15 characters of it.
    body
        What it runs; as in ``graft.core.ending.run_process``.
    log_file
        Where its output goes.
    keep
        File descriptors that it needs.
    """

    def __init__(
        self, name: str, body: Callable[[], int | None], log_file: Path, keep: Collection[int] = ()
    ) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        gc.collect()
        gc.freeze()  # the collector of a child writes to no page of these objects
        self.returncode: int | None = None
        parent, self.pid = os.getpid(), os.fork()
        if self.pid:
            return
        code = 1
        try:
            _settle(name, parent, log_file, keep)
            code = run_process(body)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, as ``subprocess`` has it, once the process has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises subprocess.TimeoutExpired."""
        began_s = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() - began_s > timeout:
                raise subprocess.TimeoutExpired("fork", timeout)
            time.sleep(_LOOK_S)
        return code

    def terminate(self) -> None:
        """Ask the process to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def end_with_parent(name: str = "") -> None:
    """In a child: end with a parent that is killed, so that no port stays taken; take a name."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            libc = ctypes.CDLL(None)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if name:
                libc.prctl(_PR_SET_NAME, name.encode()[:15])


def _settle(name: str, parent: int, log_file: Path, keep: Collection[int]) -> None:
    os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which ends its children in order
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    end_with_parent(name)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    kept = sorted(keep)
    for first, last in zip([3, *(k + 1 for k in kept)], [*kept, _FILES], strict=True):
        os.closerange(first, last)
