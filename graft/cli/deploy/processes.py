"""Supervised processes: started again when they end, ended with the command that started them."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from graft.cli.shared import announce
from graft.core.forked import ForkedProcess, end_with_parent

MAX_LOG_BYTES = 64 * 1024 * 1024  # a log is then rotated; one earlier file is left
_CHECK_EVERY_S = 0.5
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0
_STEADY_S = 60.0
_END_LIMIT_S = 10.0


@dataclass(kw_only=True)
class SupervisedProcess:
    """One process that is started again after it ended, with waits that double from 1 s to 30 s.

    It is a command, or with ``body`` a fork of this process that runs it and keeps the file
    descriptors of ``keep``.
    """

    name: str
    log_file: Path
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], int | None] | None = None
    keep: Collection[int] = ()
    announce: Callable[[str], None] = announce
    process: "subprocess.Popen[bytes] | ForkedProcess | None" = None
    due_s: float = 0.0
    wait_s: float = _FIRST_WAIT_S
    started_s: float = field(default=0.0)

    def keep_running(self) -> None:
        """Start the process where it is not running and its wait is over."""
        now_s = time.monotonic()
        if self.process is not None and (code := self.process.poll()) is not None:
            self.process = None
            steady = now_s - self.started_s > _STEADY_S
            self.wait_s = _FIRST_WAIT_S if steady else min(2 * self.wait_s, _LONGEST_WAIT_S)
            self.due_s = now_s + self.wait_s
            self.announce(f"{self.name} ended ({code}); again in {self.wait_s:.0f} s")
        _rotate(self.log_file)
        if self.process is None and now_s >= self.due_s:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            self.process = self._start()
            self.started_s = now_s
            self.announce(f"{self.name} started (process {self.process.pid})")

    def _start(self) -> "subprocess.Popen[bytes] | ForkedProcess":
        if self.body is not None:
            return ForkedProcess(f"graft-{self.name}", self.body, self.log_file, self.keep)
        with self.log_file.open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent,
                process_group=0,  # Ctrl-C reaches the command alone, which ends them in order
            )

    def end(self) -> None:
        """Terminate the process; kill it after ten seconds."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


@contextmanager
def supervised(*processes: SupervisedProcess) -> Iterator[Callable[[], bool]]:
    """Keep processes running while the yielded function is called; end them with the block.

    The function waits half a second. It returns False once Ctrl-C or SIGTERM came.
    """
    with until_stopped() as wait:

        def is_running() -> bool:
            if not wait(_CHECK_EVERY_S):
                return False
            for process in processes:
                process.keep_running()
            return True

        try:
            yield is_running
        finally:
            for process in processes:
                process.end()


@contextmanager
def until_stopped() -> Iterator[Callable[[float], bool]]:
    """Yield ``wait(seconds)``, which returns False once Ctrl-C or SIGTERM came."""
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def wait(seconds: float) -> bool:
        until_s = time.monotonic() + seconds
        while not stopped and time.monotonic() < until_s:
            time.sleep(min(0.1, seconds))
        return not stopped

    try:
        yield wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _rotate(log_file: Path) -> None:
    """Begin a process's log anew beyond its size; the process goes on writing to the same file."""
    if log_file.exists() and log_file.stat().st_size > MAX_LOG_BYTES:
        shutil.copyfile(log_file, log_file.with_name(f"{log_file.name}.1"))
        os.truncate(log_file, 0)
