"""Pushes that are being received: they survive a broken stream or depot, and expire."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from graft.core.files import make_folder
from graft.errors import PayloadLimitError, TransportError
from graft_server.durability import boot_id

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
        """One a push; the device's name, which may be any text, is in it as a digest.

        So is what a restart of the machine changes, which may tear bytes that are not synced.
        """
        device = hashlib.sha256(f"{self.device}{boot_id()}".encode()).hexdigest()[:16]
        lengths = f"{self.exact_bytes}-{self.base_bytes}-{self.residual_bytes}"
        return f"{self.model_id}.{lengths}.{device}{_SUFFIX}"


class Uploads:
    """A folder with a file a push, made on first use; one depot a folder.

    A push without new data for ``max_age_s`` seconds is removed, and the oldest are while all
    exceed ``max_bytes``. ``now`` is wall time in seconds, as file times are.
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
        for work in folder.glob(f"{WORK_PREFIX}*"):  # left by a depot that was killed
            work.unlink(missing_ok=True)

    def received_bytes(self, push: PendingPush) -> int:
        """How much of a push has been received."""
        try:
            return (self.folder / push.file_name).stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def receive(self, push: PendingPush, offset: int) -> Iterator["Upload"]:
        """Continue a push at ``offset``; the newest stream owns it, an older one can add no more.

        Raises TransportError where fewer than ``offset`` bytes were received.
        """
        self.sweep()
        make_folder(self.folder, private=True)
        name = push.file_name
        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "r+b", buffering=0) as file:
            upload = Upload(file, push.num_bytes, self._lock, offset)
            with self._lock:
                received_bytes = os.fstat(handle).st_size
                if offset > received_bytes:
                    raise TransportError(
                        f"push: got offset {offset}, wanted at most {received_bytes}"
                    )
                if (before := self._owners.get(name)) is not None:
                    before.superseded = True
                self._owners[name] = upload
                if received_bytes > offset:
                    file.truncate(offset)
                file.seek(offset)
            try:
                yield upload
            finally:
                with self._lock:
                    if self._owners.get(name) is upload:
                        del self._owners[name]

    @contextmanager
    def finishing(self, push: PendingPush) -> Iterator[Path]:
        """The file of a whole push, for one stream at a time."""
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
        """Remove what was received of a push."""
        with self._lock:
            (self.folder / push.file_name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove abandoned pushes: first by age, then the oldest beyond the size limit."""
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
    """The lock to finish one push, and how many streams have or want it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.streams = 0


class Upload:
    """A push as one stream writes it."""

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
                raise TransportError("push: another stream continued it")
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        self.num_bytes += len(data)
