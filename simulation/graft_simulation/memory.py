"""Peak memory of a run: the proportional share (PSS) of this process and all its children."""

import threading
from types import TracebackType

import psutil


class MemoryMeter:
    """Samples in the background while its ``with`` block runs; ``peak_bytes`` is the highest.

    A look walks every page table of a dozen processes, hence seldom.
    """

    def __init__(self, period_s: float = 5.0) -> None:
        self.peak_bytes = 0
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "MemoryMeter":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        root = psutil.Process()
        stopped = False
        while not stopped:
            stopped = self._stop.wait(self._period_s)  # one last look when it stops
            processes = [root, *root.children(recursive=True)]
            self.peak_bytes = max(self.peak_bytes, sum(map(_share_bytes, processes)))


def _share_bytes(process: psutil.Process) -> int:
    """Shared pages counted once over the processes that share them, where the system tells."""
    try:
        info = process.memory_full_info()
        return int(getattr(info, "pss", info.rss))
    except psutil.Error:  # it ended between the listing and the look
        return 0
