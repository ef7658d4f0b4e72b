"""Rate limits of the depot, for each device by itself."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graft.core.files import LineFile, read_lines
from graft.core.ports import Clock
from graft.errors import PayloadLimitError, QuotaExceededError
from graft.wire.transfer.link import CHUNK_BYTES

MAX_MESSAGE_BYTES: Final = 2 * CHUNK_BYTES  # the largest message that the depot accepts
_BUSY_S: Final = 1.0  # how long a device waits while its other streams are running


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceQuota:
    """Payload bytes a window, both ways together, streams at once, and bytes that a device has in
    the store; None: no limit.

    A window of ``window_s`` seconds begins with a device's first byte after the window before.
    Raises ValueError for a quota that no message fits into.
    """

    bytes_per_window: int | None = None
    window_s: float = 60.0
    max_streams: int | None = None
    stored_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.bytes_per_window is not None and self.bytes_per_window < MAX_MESSAGE_BYTES:
            raise ValueError(
                f"bytes_per_window: got {self.bytes_per_window}, wanted {MAX_MESSAGE_BYTES} or more"
            )
        if self.window_s <= 0 or (self.max_streams is not None and self.max_streams < 1):
            raise ValueError(f"quota: got {self}, wanted positive figures")


# What a device has with TLS, where it has a name; without it all on a machine share an address.
DEVICE_QUOTA: Final = DeviceQuota(
    bytes_per_window=4 * 1024**3, max_streams=4, stored_bytes=8 * 1024**3
)


class StreamDeadlines:
    """Cuts off streams that move too little.

    A stream has ``idle_s``, and a second more for every ``min_bytes_per_s`` bytes that it moves.
    One thread looks at all of them while the ``with`` block lasts.
    """

    def __init__(self, idle_s: float, min_bytes_per_s: float, clock: Clock) -> None:
        self._idle_s, self._min_bytes_per_s, self._clock = idle_s, min_bytes_per_s, clock
        self._streams: set[StreamDeadline] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look, name="depot-idle", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()

    @contextmanager
    def watch(self, cut_off: Callable[[], object]) -> Iterator["StreamDeadline"]:
        """A stream, of which ``cut_off`` is called when it is over its deadline."""
        stream = StreamDeadline(cut_off, self._clock() + self._idle_s, self._min_bytes_per_s)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def _look(self) -> None:
        while not self._closing.wait(min(1.0, self._idle_s / 4)):
            now_s = self._clock()
            for stream in list(self._streams):
                if now_s > stream.due_s and not stream.is_cut_off:
                    stream.is_cut_off = True
                    stream.cut_off()


@dataclass(eq=False, slots=True)
class StreamDeadline:
    """Until when a stream must have moved more."""

    cut_off: Callable[[], object]
    due_s: float
    min_bytes_per_s: float
    is_cut_off: bool = False

    def moved(self, num_bytes: int) -> None:
        self.due_s += num_bytes / self.min_bytes_per_s

    def is_whole(self) -> None:
        """All has come; what the depot does with it takes no time of the stream's."""
        self.due_s = math.inf


class StoredBytes:
    """What each device has in the store, from a log beside it: a line a model."""

    def __init__(self, path: Path, limit: int, is_stored: Callable[[str], bool]) -> None:
        self._limit = limit
        self._is_stored = is_stored  # a model may have been removed since
        self._lock = threading.Lock()
        self._models: dict[str, dict[str, int]] = {}
        self._file = LineFile(path)
        read_lines(path, lambda row: self._count(row["device"], row["model_id"], row["bytes"]))

    def check(self, device: str, model_id: str, num_bytes: int) -> None:
        """Raises PayloadLimitError where a model more would exceed the device's quota."""
        models = self._models.get(device, {})
        used = sum(size for name, size in models.items() if self._is_stored(name))
        if model_id not in models and used + num_bytes > self._limit:
            raise PayloadLimitError(
                f"{device}: {used} bytes in the store, {num_bytes} more, limit {self._limit}"
            )

    def add(self, device: str, model_id: str, num_bytes: int) -> None:
        """A device's model is in the store from now on."""
        with self._lock:
            if model_id not in self._models.get(device, {}):
                self._file.append({"device": device, "model_id": model_id, "bytes": num_bytes})
                self._count(device, model_id, num_bytes)

    def close(self) -> None:
        self._file.close()

    def _count(self, device: str, model_id: str, num_bytes: int) -> None:
        self._models.setdefault(str(device), {})[str(model_id)] = int(num_bytes)


class RateLimiter:
    """Counts what every device uses; safe for any number of threads."""

    def __init__(self, quota: DeviceQuota, clock: Clock) -> None:
        self._quota = quota
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: dict[str, int] = {}
        self._windows: dict[str, tuple[float, int]] = {}  # start in seconds, bytes used

    @contextmanager
    def stream(self, device: str) -> Iterator[None]:
        """A stream of a device; raises QuotaExceededError where it has too many already."""
        with self._lock:
            running, limit = self._streams.get(device, 0), self._quota.max_streams
            if limit is not None and running >= limit:
                raise QuotaExceededError(f"{device}: {running} streams, limit {limit}", _BUSY_S)
            self._streams[device] = running + 1
        try:
            yield
        finally:
            with self._lock:
                self._streams[device] -= 1
                if not self._streams[device]:
                    del self._streams[device]

    def charge(self, device: str, num_bytes: int) -> None:
        """Count bytes of a device; raises QuotaExceededError beyond its quota for this window."""
        limit, window_s = self._quota.bytes_per_window, self._quota.window_s
        if limit is None:
            return
        with self._lock:
            now = self._clock()
            start, used = self._windows.get(device, (now, 0))
            if now >= start + window_s:
                start, used = now, 0
                # Windows that are over are forgotten, so that the table does not grow.
                self._windows = {
                    name: window
                    for name, window in self._windows.items()
                    if now < window[0] + window_s
                }
            if used + num_bytes > limit:
                raise QuotaExceededError(
                    f"{device}: {used} bytes in this window, {num_bytes} more, limit {limit}",
                    start + window_s - now,
                )
            self._windows[device] = (start, used + num_bytes)
