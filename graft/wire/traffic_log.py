"""What a link carried, as its counter logs it: a JSON line a peer and interval.

The TCP proxy before the server and an independent counter on the link write the same lines.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from graft.core.files import LineFile, read_lines

# A segment's headers on an Ethernet: frame 14, IP 20 (version 6: 40), TCP 20 and, as every
# system sends them, time stamps of 12. A SYN's own options (segment size, window scale,
# selective acknowledgement) take 8 more.
ETHERNET_BYTES: Final = 14
IP_BYTES: Final = {4: 20, 6: 40}
TCP_BYTES: Final = 20
TIMESTAMP_BYTES: Final = 12
SYN_BYTES: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficCounters:
    """What one link carried: bytes with every header from Ethernet's on, and segments.

    Up is towards the server. ``repeated_segments`` are those that the server sent again.
    """

    up_bytes: int = 0
    down_bytes: int = 0
    up_segments: int = 0
    down_segments: int = 0
    repeated_segments: int = 0

    def __add__(self, other: "TrafficCounters") -> "TrafficCounters":
        return self._joined(other, lambda mine, its: mine + its)

    def __sub__(self, other: "TrafficCounters") -> "TrafficCounters":
        return self._joined(other, lambda mine, its: mine - its)

    def _joined(
        self, other: "TrafficCounters", join: Callable[[int, int], int]
    ) -> "TrafficCounters":
        names = [field.name for field in dataclasses.fields(self)]
        return TrafficCounters(
            **{name: join(getattr(self, name), getattr(other, name)) for name in names}
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficRecord:
    """What was carried to and from ``peer`` (an address) between two moments of Unix time.

    ``service``: "flower" or "depot" of a TCP proxy, "link" where a whole interface was counted.
    """

    since_s: float
    until_s: float
    peer: str
    service: str
    carried: TrafficCounters


class TrafficLog:
    """Appends meter lines to a file; each is with the operating system when ``write`` returns.

    Raises RunError where a line cannot be written whole.
    """

    def __init__(self, path: Path, max_bytes: int | None = None) -> None:
        self._file = LineFile(path, max_bytes)

    def write(self, line: TrafficRecord) -> None:
        row = {name: getattr(line, name) for name in ("since_s", "until_s", "peer", "service")}
        self._file.append(row | dataclasses.asdict(line.carried))

    def close(self) -> None:
        self._file.close()


def read_traffic_log(path: Path) -> list[TrafficRecord]:
    """All whole lines, in the order written; raises RunError for a missing file or another form."""

    def line(row: dict[str, object]) -> TrafficRecord:
        own = {name: row.pop(name) for name in ("since_s", "until_s", "peer", "service")}
        return TrafficRecord(carried=TrafficCounters(**row), **own)  # type: ignore[arg-type]

    return read_lines(path, line)


def total_traffic(lines: list[TrafficRecord]) -> TrafficCounters:
    """The sum over all lines."""
    return sum((line.carried for line in lines), TrafficCounters())
