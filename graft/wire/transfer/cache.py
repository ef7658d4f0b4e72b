"""The parts of models that a device fetched before: the port, in memory, in a folder."""

import hashlib
import os
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from graft.core.files import replace_file
from graft.wire.payload.blocks import COPY_BYTES, PartFile, open_work
from graft.wire.transfer.link import Part
from graft.wire.transfer.partial_download import (
    DIGEST_BYTES,
    FilePartial,
    PartialDownload,
    WorkPartial,
)

_NOTES: Final = (".log", ".push")  # a few bytes each, not counted


class PartCache(Protocol):
    """Parts of models by (model id, part); forgetting one only costs its bytes again."""

    @property
    def folder(self) -> Path | None:
        """Where large models may be joined, split and mapped; None: in memory."""
        ...

    def open(self, model_id: str, part: Part) -> PartFile | None:
        """A cached part, checked just now, for the caller to close; None where there is none."""
        ...

    def holds(self, model_id: str, part: Part) -> bool:
        """Whether the part is cached; ``open`` may still find it damaged."""
        ...

    def start_download(self, model_id: str, part: Part, num_bytes: int) -> PartialDownload:
        """Where a part of ``num_bytes`` is received, after what was received of it before."""
        ...

    def sent_bytes(self, model_id: str) -> int | None:
        """How much of an unfinished push has ledger rows; None: no push is unfinished."""
        ...

    def note_sent(self, model_id: str, num_bytes: int | None) -> None:
        """Note how much of an unfinished push has ledger rows; None: the push is finished."""
        ...

    def forget(self, model_id: str) -> None:
        """Remove all parts of a model, and what was received of them."""
        ...


class MemoryCache:
    """A cache that lives as long as the object; ``get``, ``put`` and ``forget`` are all it is."""

    folder = None

    def __init__(self) -> None:
        self._parts: dict[tuple[str, Part], bytes] = {}

    def get(self, model_id: str, part: Part) -> bytes | None:
        """The bytes of a cached part."""
        return self._parts.get((model_id, part))

    def put(self, model_id: str, part: Part, data: bytes) -> None:
        """Cache a part that was received."""
        self._parts[model_id, part] = data

    def forget(self, model_id: str) -> None:
        for key in [key for key in self._parts if key[0] == model_id]:
            del self._parts[key]

    def holds(self, model_id: str, part: Part) -> bool:
        return self.get(model_id, part) is not None

    def open(self, model_id: str, part: Part) -> PartFile | None:
        data = self.get(model_id, part)
        return None if data is None else PartFile(file=BytesIO(data), num_bytes=len(data))

    def start_download(self, model_id: str, part: Part, num_bytes: int) -> PartialDownload:
        return WorkPartial(BytesIO(), partial(self.put, model_id, part))

    def sent_bytes(self, model_id: str) -> int | None:
        return None  # a push ends with its process

    def note_sent(self, model_id: str, num_bytes: int | None) -> None:
        pass


class FolderCache:
    """A cache in a folder, made on first use; a damaged or torn file counts as missing.

    Parameters
    ----------
    folder
        Where the parts are; one process at a time.
    quota_bytes
        How much the folder may hold, partial downloads included; None: no limit. The files used
        longest ago are removed first; a part larger than the quota is used and not cached.
        Joining a model needs its own size beside the quota, in nameless working files.
    """

    # The folder itself is the only count, so that no kill makes it wrong.

    def __init__(self, folder: Path, quota_bytes: int | None = None) -> None:
        self.folder = folder
        self._quota_bytes = quota_bytes

    def open(self, model_id: str, part: Part) -> PartFile | None:
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

    def start_download(self, model_id: str, part: Part, num_bytes: int) -> PartialDownload:
        if self._quota_bytes is not None and num_bytes + DIGEST_BYTES > self._quota_bytes:
            return WorkPartial(open_work(self.folder))
        path = self._path(model_id, part)
        received, log = (path.with_name(f"{path.name}.{end}") for end in ("partial", "log"))
        self._make_room(num_bytes, (path.name, received.name, log.name))
        return FilePartial(received, log, path)

    def holds(self, model_id: str, part: Part) -> bool:
        return self._path(model_id, part).exists()

    def sent_bytes(self, model_id: str) -> int | None:
        try:
            return int((self.folder / f"{model_id}.push").read_text("ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def note_sent(self, model_id: str, num_bytes: int | None) -> None:
        path = self.folder / f"{model_id}.push"
        if num_bytes is None:
            path.unlink(missing_ok=True)
        else:
            replace_file(path, b"%d" % num_bytes, mode=0o600, durable=False)

    def finished_models(self) -> set[str]:
        """The models with a cached or half received part; one that is being pushed is none."""
        names = {path.name for path in self.folder.glob("*.*")}
        models = {name.partition(".")[0] for name in names}
        return {model_id for model_id in models if f"{model_id}.push" not in names}

    def forget(self, model_id: str) -> None:
        for path in self.folder.glob(f"{model_id}.*"):
            path.unlink(missing_ok=True)

    def _path(self, model_id: str, part: Part) -> Path:
        return self.folder / f"{model_id}.{part}"

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
        folder_bytes = num_bytes + DIGEST_BYTES + sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if folder_bytes <= self._quota_bytes:
                return
            Path(path).unlink(missing_ok=True)  # the log of a removed partial vouches for nothing
            folder_bytes -= size


def _digest_of(file: BinaryIO, num_bytes: int) -> bytes:
    digest = hashlib.sha256()
    while num_bytes and (data := file.read(min(num_bytes, COPY_BYTES))):
        digest.update(data)
        num_bytes -= len(data)
    return digest.digest()
