"""What outlives a power cut: a marker that closes each round, and what is synced before it."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from graft.core.files import AnyPath, replace_file, sync_path

MARKER: Final = "round.json"
_TABLES: Final = (
    "architecture_averages", "catalogue", "ledger", "profiles", "rejections", "results",
)  # fmt: skip
_MANY_FILES: Final = 64  # beyond it one sync of the whole machine takes less time
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def write_marker(folder: AnyPath) -> None:
    """Close a round: its tables, then the marker with their digests, are on the disk on return."""
    sync([*(folder / f"{name}.parquet" for name in _TABLES), folder])
    replace_file(folder / MARKER, json.dumps({"sha256": _digests(folder)}, indent=1).encode())


def find_damage(folder: AnyPath) -> list[str]:
    """The files of a closed round that are missing or not as its marker says."""
    try:
        wanted = dict(json.loads((folder / MARKER).read_text("utf-8"))["sha256"])
    except (ValueError, TypeError, KeyError):
        return [MARKER]
    got = _digests(folder)
    return [name for name in sorted({*got, *wanted}) if got.get(name) != wanted.get(name)]


def sync(paths: Sequence[AnyPath]) -> None:
    """Wait until those of the paths that are local files and folders are on the disk."""
    local = [path for path in paths if isinstance(path, Path) and path.exists()]
    if len(local) > _MANY_FILES:
        os.sync()
        return
    for path in local:
        sync_path(path)


def boot_id() -> str:
    """What a restart of the machine changes; "" where the system does not say."""
    try:
        return _BOOT_ID.read_text("utf-8").strip()
    except OSError:
        return ""


def _digests(folder: AnyPath) -> dict[str, str]:
    """The SHA-256 of each table of a round, by file name."""
    paths = [folder / f"{name}.parquet" for name in _TABLES]
    return {
        str(path.name): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.exists()
    }
