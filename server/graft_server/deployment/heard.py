"""When each device was last heard, by the gateway, in a file for other processes."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graft.core.files import replace_file

ONLINE_S: Final = 60.0  # a device that waits calls several times in that
_FILE: Final = "state/heard.json"
_STALE_S: Final = 30.0  # a server that runs writes every few seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What a server has heard: when it wrote that, and by device when it heard it last, in epoch
    seconds."""

    written_s: float = 0.0
    by_device: Mapping[str, float]

    def is_current(self, now_s: float) -> bool:
        """Whether a server runs that writes it."""
        return abs(now_s - self.written_s) < _STALE_S

    def word(self, domain_id: str, now_s: float) -> str:
        """ "online", "offline", "registered" (never heard), or "unknown" without a server."""
        if not self.is_current(now_s):
            return "unknown"
        if domain_id not in self.by_device:
            return "registered"
        return "online" if now_s - self.by_device[domain_id] < ONLINE_S else "offline"


class HeardDevices:
    """Notes which devices are heard; goes on with what an earlier server wrote."""

    def __init__(self, server: Path, clock_s: Callable[[], float] = time.time) -> None:
        self._server = server
        self._clock_s = clock_s
        self._by_device = dict(read_heard(server).by_device)

    def hear(self, *domain_ids: str) -> None:
        """Devices are heard now; "" is a connection without a name."""
        self._by_device |= dict.fromkeys(filter(None, domain_ids), self._clock_s())

    def write(self, connected: Iterable[str] = ()) -> None:
        """Write the file; ``connected`` devices are heard now."""
        self.hear(*connected)
        facts = {"time": self._clock_s(), "heard": self._by_device.copy()}
        replace_file(self._server / _FILE, json.dumps(facts).encode(), durable=False)


def read_heard(server: Path) -> Heard:
    """What a server wrote last; nothing where it cannot be read."""
    try:
        facts = json.loads((server / _FILE).read_text("utf-8"))
        by_device = {str(name): float(at_s) for name, at_s in facts["heard"].items()}
        return Heard(written_s=float(facts["time"]), by_device=by_device)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Heard(by_device={})
