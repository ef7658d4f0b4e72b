"""What a device holds of the models it fetched before."""

import hashlib
from pathlib import Path
from typing import Final, Protocol

from graft.files import replace_file
from graft.wire.link import Part

_DIGEST_BYTES: Final = 32


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
    """A cache in a folder, made on first use; a damaged or torn file counts as not held."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, model_id: str, part: Part) -> bytes | None:
        try:
            content = self._path(model_id, part).read_bytes()
        except FileNotFoundError:
            return None
        digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        return data if hashlib.sha256(data).digest() == digest else None

    def put(self, model_id: str, part: Part, data: bytes) -> None:
        content = hashlib.sha256(data).digest() + data
        replace_file(self._path(model_id, part), content, mode=0o600, durable=False)

    def forget(self, model_id: str) -> None:
        for path in self._folder.glob(f"{model_id}.*"):
            path.unlink(missing_ok=True)

    def _path(self, model_id: str, part: Part) -> Path:
        return self._folder / f"{model_id}.{part}"
