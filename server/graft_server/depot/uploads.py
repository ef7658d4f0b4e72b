"""Pushes on their way in: kept when a stream or the depot breaks, gone when nobody comes back."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from graft.errors import PayloadLimitError, TransportError

_SUFFIX: Final = ".push"
WORK_PREFIX: Final = "work-"


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingPush:
    """What a device pushes: a model, as its exact payload or as base and residual."""

    device: str
    model_id: str
    exact_bytes: int
    base_bytes: int
    residual_bytes: int

    @property
    def num_bytes(self) -> int:
        return self.exact_bytes + self.base_bytes + self.residual_bytes

    @property
    def file_name(self) -> str:
        """One a push; the device's name goes in as a digest, since it may be any text."""
        device = hashlib.sha256(self.device.encode()).hexdigest()[:16]
        lengths = f"{self.exact_bytes}-{self.base_bytes}-{self.residual_bytes}"
        return f"{self.model_id}.{lengths}.{device}{_SUFFIX}"


class Uploads:
    """A folder with a file a push, made on first use.

    A push that nobody went on with for ``max_age_s`` seconds is removed, and beyond ``max_bytes``
    in all the oldest are. ``now`` is wall time in seconds, as file times are. One depot a folder.
    """

    def __init__(
        self, folder: Path, *, max_age_s: float, max_bytes: int, now: Callable[[], float]
    ) -> None:
        self.folder = folder
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes
        self._now = now
        self._lock = threading.Lock()
        self._owners: dict[str, Upload] = {}
        self._finishing: dict[str, _Turn] = {}
        for work in folder.glob(f"{WORK_PREFIX}*"):  # of a depot that was killed
            work.unlink(missing_ok=True)

    def received_bytes(self, push: PendingPush) -> int:
        """How much of a push is here."""
        try:
            return (self.folder / push.file_name).stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def receive(self, push: PendingPush, offset: int) -> Iterator["Upload"]:
        """Go on with a push at ``offset``; the stream that had it before can add no more.

        Raises TransportError where less than ``offset`` bytes are held.
        """
        self.sweep()
        self.folder.mkdir(parents=True, exist_ok=True)
        name = push.file_name
        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "r+b", buffering=0) as file:
            incoming = Upload(file, push.num_bytes, self._lock, offset)
            with self._lock:
                held_bytes = os.fstat(handle).st_size
                if offset > held_bytes:
                    raise TransportError(f"push: holds {held_bytes} bytes, offset is {offset}")
                if (before := self._owners.get(name)) is not None:
                    before.superseded = True
                self._owners[name] = incoming
                if held_bytes > offset:
                    file.truncate(offset)
                file.seek(offset)
            try:
                yield incoming
            finally:
                with self._lock:
                    if self._owners.get(name) is incoming:
                        del self._owners[name]

    @contextmanager
    def finishing(self, push: PendingPush) -> Iterator[Path]:
        """The file of a push that is whole; one stream at a time has it."""
        name = push.file_name
        with self._lock:
            turn = self._finishing.setdefault(name, _Turn())
            turn.streams += 1
        try:
            with turn.lock:
                yield self.folder / name
        finally:
            with self._lock:
                turn.streams -= 1
                if not turn.streams:
                    del self._finishing[name]

    def drop(self, push: PendingPush) -> None:
        """Forget what came of a push."""
        with self._lock:
            (self.folder / push.file_name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what was abandoned, by age first, then by size."""
        with self._lock:
            left = []
            for path in self.folder.glob(f"*{_SUFFIX}"):
                if path.name in self._owners or path.name in self._finishing:
                    continue
                status = path.stat()
                if self._now() - status.st_mtime > self._max_age_s:
                    path.unlink(missing_ok=True)
                else:
                    left.append((status.st_mtime_ns, status.st_size, path))
            excess = sum(size for _, size, _ in left) - self._max_bytes
            for _, size, path in sorted(left):
                if excess <= 0:
                    return
                path.unlink(missing_ok=True)
                excess -= size


class _Turn:
    """Whose turn it is to finish one push, and how many streams want to."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.streams = 0


class Upload:
    """One stream's hold on a push."""

    def __init__(self, file: BinaryIO, limit: int, lock: threading.Lock, num_bytes: int) -> None:
        self._file = file
        self._limit = limit
        self._lock = lock
        self.num_bytes = num_bytes
        self.superseded = False

    def append(self, data: bytes) -> None:
        """Raises PayloadLimitError beyond what was announced."""
        if self.num_bytes + len(data) > self._limit:
            raise PayloadLimitError(f"push: more than the {self._limit} bytes announced")
        with self._lock:
            if self.superseded:
                raise TransportError("push: another stream went on with it")
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        self.num_bytes += len(data)
