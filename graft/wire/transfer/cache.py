"""What a device holds of the models it fetched before."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from graft.core.files import replace_file
from graft.wire.payload.parts_file import PartFile
from graft.wire.payload.regions import COPY_BYTES, open_work
from graft.wire.transfer.link import Part
from graft.wire.transfer.partial_download import (
    DIGEST_BYTES,
    FilePartial,
    PartialDownload,
    SpooledPartial,
)

_NOTES: Final = (".log", ".push")  # a few bytes each, not counted


class PartCache(Protocol):
    """Parts of models by (model id, part); forgetting one only costs its bytes again."""

    def get(self, model_id: str, part: Part) -> bytes | None: ...

    def put(self, model_id: str, part: Part, data: bytes) -> None: ...

    def forget(self, model_id: str) -> None: ...


class MemoryCache:
    """A cache that lives as long as the object."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, Part], bytes] = {}

    def get(self, model_id: str, part: Part) -> bytes | None:
        return self._parts.get((model_id, part))

    def put(self, model_id: str, part: Part, data: bytes) -> None:
        self._parts[model_id, part] = data

    def forget(self, model_id: str) -> None:
        for key in [key for key in self._parts if key[0] == model_id]:
            del self._parts[key]


class FolderCache:
    """A cache in a folder, made on first use; a damaged or torn file counts as not held.

    ``quota_bytes``: how much the folder may hold, half received parts included (None: no end).
    What was used longest ago goes first; a part larger than the quota is used and not kept. The
    folder itself is the only count, so that no kill makes it wrong. Joining a model needs its own
    size beside the quota, in files that have no name and go with their process.
    """

    def __init__(self, folder: Path, quota_bytes: int | None = None) -> None:
        self.folder = folder
        self._quota_bytes = quota_bytes

    def get(self, model_id: str, part: Part) -> bytes | None:
        held = self.open(model_id, part)
        if held is None:
            return None
        with held.file:
            return held.file.read(held.num_bytes)

    def open(self, model_id: str, part: Part) -> PartFile | None:
        """The part as a file that was checked just now; None where it is not held."""
        path = self._path(model_id, part)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        num_bytes = os.fstat(file.fileno()).st_size - DIGEST_BYTES
        if num_bytes < 0 or _digest_of(file, num_bytes) != file.read():
            file.close()
            return None
        os.utime(path)
        file.seek(0)
        return PartFile(file=file, num_bytes=num_bytes)

    def put(self, model_id: str, part: Part, data: bytes) -> None:
        if not self._fits(len(data)):
            return
        path = self._path(model_id, part)
        self._make_room(len(data), (path.name,))
        content = data + hashlib.sha256(data).digest()
        replace_file(path, content, mode=0o600, durable=False)

    def partial(self, model_id: str, part: Part, num_bytes: int) -> PartialDownload:
        """Where a part of ``num_bytes`` is received: on from what an earlier process received."""
        if not self._fits(num_bytes):
            return SpooledPartial(open_work(self.folder))
        path = self._path(model_id, part)
        partial, log = (path.with_name(f"{path.name}.{end}") for end in ("partial", "log"))
        self._make_room(num_bytes, (path.name, partial.name, log.name))
        return FilePartial(partial, log, path)

    def holds(self, model_id: str, part: Part) -> bool:
        """Whether the part is there, unless opening it should find it damaged."""
        return self._path(model_id, part).exists()

    def sent_bytes(self, model_id: str) -> int | None:
        """Of a push that never ended: how much of it the ledger tells; None: no such push."""
        try:
            return int((self.folder / f"{model_id}.push").read_text("ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def note_sent(self, model_id: str, num_bytes: int | None) -> None:
        """Remember a push that has not ended yet, with what the ledger tells; None: it has."""
        path = self.folder / f"{model_id}.push"
        if num_bytes is None:
            path.unlink(missing_ok=True)
        else:
            replace_file(path, b"%d" % num_bytes, mode=0o600, durable=False)

    def forget(self, model_id: str) -> None:
        for path in self.folder.glob(f"{model_id}.*"):
            path.unlink(missing_ok=True)

    def _path(self, model_id: str, part: Part) -> Path:
        return self.folder / f"{model_id}.{part}"

    def _fits(self, num_bytes: int) -> bool:
        return self._quota_bytes is None or num_bytes + DIGEST_BYTES <= self._quota_bytes

    def _make_room(self, num_bytes: int, spared: tuple[str, ...]) -> None:
        """Remove the files used longest ago until ``num_bytes`` under the spared names fit."""
        if self._quota_bytes is None or not self.folder.exists():
            return
        files = [
            (status.st_mtime_ns, status.st_size, entry.path)
            for entry in os.scandir(self.folder)
            if entry.name not in spared
            and not entry.name.endswith(_NOTES)
            and (status := entry.stat())
        ]
        held_bytes = num_bytes + DIGEST_BYTES + sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if held_bytes <= self._quota_bytes:
                return
            Path(path).unlink(missing_ok=True)  # the log of a half received part vouches for none
            held_bytes -= size


def _digest_of(file: BinaryIO, num_bytes: int) -> bytes:
    digest = hashlib.sha256()
    while num_bytes and (data := file.read(min(num_bytes, COPY_BYTES))):
        digest.update(data)
        num_bytes -= len(data)
    return digest.digest()
