"""How much memory this process may use."""

from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
# By version of control groups: the line of /proc/self/cgroup, the folder, and the file.
_LIMITS = (("0::", "", "memory.max"), (":memory:", "memory", "memory.limit_in_bytes"))


def usable_memory(groups: Path = _GROUPS, process: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes: the machine's memory, or the least limit of this process's control groups."""
    least = int(psutil.virtual_memory().total)
    try:
        lines = process.read_text("utf-8").splitlines()
    except OSError:
        return least
    for mark, folder, name in _LIMITS:
        for line in lines:
            if mark not in line:
                continue
            top = groups / folder
            # A container sees its own group at the top, whatever the line says.
            own = top / line.partition(mark)[2].lstrip("/")
            for place in (own, *own.parents):
                if not place.is_relative_to(top):
                    break
                least = min(least, _limit(place / name, least))
    return least


def _limit(path: Path, otherwise: int) -> int:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):  # there is none, or it says "max"
        return otherwise
