"""What a simulated device holds: names, while the bytes stay in the one model store."""

from collections.abc import Iterable
from pathlib import Path

from graft.core.ports import ModelStore
from graft.wire.transfer.link import Part


class StoreBackedCache:
    """``PartCache`` of a simulated device: ``names`` of what was shipped to it.

    Thousands of devices hold the same models, whose bytes are there once.
    """

    def __init__(self, names: Iterable[str], store: ModelStore) -> None:
        self.names = set(names)
        self._store = store

    def get(self, model_id: str, part: Part) -> bytes | None:
        return self._store.part(model_id, part) if f"{model_id}.{part}" in self.names else None

    def put(self, model_id: str, part: Part, data: bytes) -> None:
        self.names.add(f"{model_id}.{part}")

    def forget(self, model_id: str) -> None:
        self.names = {name for name in self.names if not name.startswith(model_id)}


class ListedParts(StoreBackedCache):
    """Held parts whose names outlive the process: a file with a line a part."""

    def __init__(self, path: Path, store: ModelStore) -> None:
        super().__init__(path.read_text("utf-8").split("\n") if path.exists() else (), store)
        self._path = path

    def put(self, model_id: str, part: Part, data: bytes) -> None:
        super().put(model_id, part, data)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{model_id}.{part}\n")

    def forget(self, model_id: str) -> None:
        super().forget(model_id)
        if self._path.exists():
            self._path.write_text("".join(f"{name}\n" for name in sorted(self.names)), "utf-8")
