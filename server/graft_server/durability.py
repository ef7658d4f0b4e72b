"""What outlives a power cut: a marker that closes each round, and what is synced before it."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from graft.core.files import AnyPath, replace_file, sync_path

MARKER: Final = "round.json"
_TABLES: Final = (
    "architecture_averages", "catalogue", "ledger", "peers", "profiles", "rejections", "results",
)  # fmt: skip
_MANY_FILES: Final = 64  # beyond it one sync of the whole machine takes less time
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def write_marker(folder: AnyPath) -> None:
    """Close a round: its tables, then the marker with their digests, are on the disk on return."""
    sync([*(folder / f"{name}.parquet" for name in _TABLES), folder])
    _write(folder, {"sha256": _digests(folder)})


def replace_tables(folder: AnyPath, tables: Mapping[str, bytes]) -> None:
    """Replace tables of a round, by file name; at any moment the marker fits what is there."""
    if not (folder / MARKER).exists():  # a round of before markers
        for name, content in tables.items():
            replace_file(folder / name, content)
        return
    following = {name: hashlib.sha256(content).hexdigest() for name, content in tables.items()}
    _write(folder, {"sha256": _digests(folder), "following": following})
    for name, content in tables.items():
        replace_file(folder / name, content)
    write_marker(folder)


def is_replacing(folder: AnyPath) -> bool:
    """Whether ``replace_tables`` was cut off in a round before its last step."""
    marker = folder / MARKER
    return marker.exists() and '"following"' in marker.read_text("utf-8")


def count_rounds(run_folder: AnyPath) -> int:
    """How many rounds of a run are finished; reads none of them."""
    finished = 0
    while is_finished(run_folder / "rounds" / str(finished)):
        finished += 1
    return finished


def is_finished(folder: AnyPath) -> bool:
    """Whether the marker is there, or a round of before markers, which has other file names."""
    return (folder / MARKER).exists() or (
        (folder / "results.parquet").exists()
        and not (folder / "architecture_averages.parquet").exists()
    )


def find_damage(folder: AnyPath) -> list[str]:
    """The files of a closed round that are missing or not as its marker says."""
    try:
        marker = json.loads((folder / MARKER).read_text("utf-8"))
        wanted, following = dict(marker["sha256"]), dict(marker.get("following", {}))
    except (ValueError, TypeError, KeyError):
        return [MARKER]
    got = _digests(folder)
    return [
        name
        for name in sorted({*got, *wanted})
        if got.get(name) not in (wanted.get(name), following.get(name, wanted.get(name)))
    ]


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


def _write(folder: AnyPath, marker: Mapping[str, Mapping[str, str]]) -> None:
    replace_file(folder / MARKER, json.dumps(marker, indent=1).encode())


def _digests(folder: AnyPath) -> dict[str, str]:
    """The SHA-256 of each table of a round, by file name."""
    paths = [folder / f"{name}.parquet" for name in _TABLES]
    return {
        str(path.name): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.exists()
    }
