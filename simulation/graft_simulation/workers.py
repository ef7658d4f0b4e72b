"""Worker processes of this machine, forked from one template that imports torch once for all.

A forked worker starts in milliseconds and shares the template's memory. This module imports
nothing heavy, so that the template imports while the process that starts it does so too.
"""

import importlib
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from types import MappingProxyType
from typing import Any

from graft.errors import EdgeError

WORKER_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        # One thread a worker: the sums of a matrix product then have one order.
        "OMP_NUM_THREADS": "1",
        # The arrays of a task take the memory of the one before: what is given back to the kernel
        # comes again a page fault at a time, which takes as long as reading the data does.
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
    }
)
_MOST_DEATHS = 3  # of workers over one call; then the run ends instead of the machine
_PRELOAD = "graft_simulation.block.worker"
_early: "list[_Template]" = []


def start_early() -> None:
    """Start the template of the next ``Workers``, to import while the caller imports too."""
    if not _early:
        _early.append(_Template(_PRELOAD))


class Workers:
    """Forked processes that run calls; a context manager, whose end ends them.

    A worker that dies is replaced, and its call runs again. None outlives this process.
    ``preload``: the module that the template imports.
    """

    def __init__(self, number: int, preload: str = _PRELOAD) -> None:
        early = _early.pop() if _early and preload == _PRELOAD else None
        self._template = early or _Template(preload)
        self._workers = [self._fork() for _ in range(number)]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()
        self._template.close()

    def run(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        """The result of each call with its index, in any order.

        Parameters
        ----------
        function : callable
            Of a module; called with the arguments of each of ``calls``.

        Raises
        ------
        EdgeError
            For a call that raised, or whose workers died again and again.
        """
        waiting, deaths = deque(range(len(calls))), Counter[int]()
        idle, running = list(self._workers), dict[Connection, int]()

        def send_waiting() -> None:
            while waiting and idle:
                worker = idle.pop(0)
                running[worker] = waiting.popleft()
                with suppress(OSError):  # it died: found when its result is read
                    worker.send((function, calls[running[worker]]))

        send_waiting()
        while running:
            for worker in wait(list(running)):
                assert isinstance(worker, Connection)
                number = running.pop(worker)
                try:
                    is_done, result = worker.recv()
                except (EOFError, OSError):
                    deaths[number] += 1
                    if deaths[number] > _MOST_DEATHS:
                        raise EdgeError("a block of domains was lost: its workers died") from None
                    waiting.appendleft(number)
                    idle.append(self._replace(worker))
                    send_waiting()
                    continue
                if not is_done:
                    raise EdgeError(f"a block of domains was lost: {result}")
                idle.append(worker)
                send_waiting()
                yield number, result

    def _replace(self, dead: Connection) -> Connection:
        dead.close()
        self._workers.remove(dead)
        self._workers.append(self._fork())
        return self._workers[-1]

    def _fork(self) -> Connection:
        worker, its_end = Pipe()
        with its_end:
            try:
                self._template.fork(its_end.fileno())
            except OSError:  # the template was killed
                self._template.close()
                self._template = _Template(self._template.preload)
                self._template.fork(its_end.fileno())
        return worker


def worker_environment() -> dict[str, str]:
    """The variables of a worker of this machine, which imports what this process would."""
    return {**WORKER_VARIABLES, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class _Template:
    """The process that workers are forked from; it ends when this one closes or dies."""

    def __init__(self, preload: str) -> None:
        self.preload = preload
        self._control, its_end = socket.socketpair()
        with its_end:
            code = f"from {__name__} import serve; serve({its_end.fileno()}, {preload!r})"
            self._process = subprocess.Popen(  # noqa: S603  (this very Python)
                [sys.executable, "-P", "-c", code],
                env={**os.environ, **worker_environment()},
                pass_fds=[its_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what goes wrong in a call is its result
            )

    def fork(self, file: int) -> None:
        """Fork a worker that speaks over the open file; OSError where the template is gone."""
        socket.send_fds(self._control, [b"fork"], [file])

    def close(self) -> None:
        """End it; its workers end when their own connections do."""
        self._control.close()
        self._process.kill()
        self._process.wait()


def serve(file: int, preload: str) -> None:
    """The template's own loop: import, then fork a worker for each file that comes."""
    control = socket.socket(fileno=file)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends its workers
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a dead worker
    with suppress(Exception):  # the first call fails by the same error, with its text
        importlib.import_module(preload)
    while True:
        message, files, _, _ = socket.recv_fds(control, 16, 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _work(Connection(files[0]))
        os.close(files[0])


def _work(run: "Connection[Any, Any]") -> None:
    """A worker's loop, which ends with the run, also in the middle of a call."""
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        with suppress(EOFError, OSError):
            while True:
                calls.put(run.recv_bytes())
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            function, arguments = pickle.loads(calls.get())  # noqa: S301  (from our own parent)
            answer = True, function(*arguments)
        except Exception as error:
            answer = False, f"{type(error).__name__}: {error}"
        with suppress(OSError):
            run.send(answer)
