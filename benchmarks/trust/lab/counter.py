"""An independent count of what each link carried: the server's network interfaces."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from graft.wire.traffic_log import TrafficCounters, TrafficRecord
from lab.network import Lab


class InterfaceCounter:
    """Reads the server's interface counters at intervals while its ``with`` block runs.

    ``record`` gets a line for each device whose link carried anything. Bytes are frames with
    their Ethernet header, retransmissions and losses on the way down included.
    """

    def __init__(
        self, lab: Lab, record: Callable[[TrafficRecord], None], *, interval_s: float = 0.2
    ) -> None:
        self._table = Path(f"/proc/{lab.server.pid}/net/dev")
        self._peers = {f"d{number}": node.address for number, node in enumerate(lab.devices)}
        self._record = record
        self._interval_s = interval_s
        self._seen = self._read()
        self._since_s = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="interface-counter", daemon=True)

    def __enter__(self) -> "InterfaceCounter":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._write()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._write()

    def _write(self) -> None:
        now, until_s = self._read(), time.time()
        for name, carried in now.items():
            fresh = carried - self._seen[name]
            if fresh != TrafficCounters():
                line = TrafficRecord(
                    since_s=self._since_s,
                    until_s=until_s,
                    peer=self._peers[name],
                    service="link",
                    carried=fresh,
                )
                self._record(line)
        self._seen, self._since_s = now, until_s

    def _read(self) -> dict[str, TrafficCounters]:
        carried = {}
        for line in self._table.read_text("ascii").splitlines():
            name, colon, figures = line.partition(":")
            if colon and name.strip() in self._peers:
                numbers = [int(word) for word in figures.split()]
                carried[name.strip()] = TrafficCounters(
                    up_bytes=numbers[0],
                    up_segments=numbers[1],
                    down_bytes=numbers[8],
                    down_segments=numbers[9],
                )
        return carried
