"""Rate limits of the depot, for each device by itself."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from graft.core.ports import Clock
from graft.errors import QuotaExceededError
from graft.wire.transfer.link import CHUNK_BYTES

MAX_MESSAGE_BYTES: Final = 2 * CHUNK_BYTES  # the largest message that the depot accepts
_BUSY_S: Final = 1.0  # how long a device waits while its other streams are running


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceQuota:
    """Payload bytes a window, both ways together, and streams at once; None: no limit.

    A window of ``window_s`` seconds begins with a device's first byte after the window before.
    Raises ValueError for a quota that no message fits into.
    """

    bytes_per_window: int | None = None
    window_s: float = 60.0
    max_streams: int | None = None

    def __post_init__(self) -> None:
        if self.bytes_per_window is not None and self.bytes_per_window < MAX_MESSAGE_BYTES:
            raise ValueError(
                f"bytes_per_window: got {self.bytes_per_window}, wanted {MAX_MESSAGE_BYTES} or more"
            )
        if self.window_s <= 0 or (self.max_streams is not None and self.max_streams < 1):
            raise ValueError(f"quota: got {self}, wanted positive figures")


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
