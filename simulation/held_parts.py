"""What a simulated device holds: names on disk, while the bytes stay in the one model store."""

from pathlib import Path

from graft.ports import ModelStore
from graft.wire.link import Part


class HeldParts:
    """``PartCache`` of a simulated device. Thousands of devices hold the same models; each
    keeps only a list of what was shipped to it, a line a part."""

    def __init__(self, path: Path, store: ModelStore) -> None:
        self._path = path
        self._store = store
        self._held = set(path.read_text("utf-8").split("\n")) if path.exists() else set[str]()

    def get(self, model_id: str, part: Part) -> bytes | None:
        return self._store.part(model_id, part) if f"{model_id}.{part}" in self._held else None

    def put(self, model_id: str, part: Part, data: bytes) -> None:
        self._held.add(f"{model_id}.{part}")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{model_id}.{part}\n")

    def forget(self, model_id: str) -> None:
        self._held = {name for name in self._held if not name.startswith(model_id)}
        if self._path.exists():
            self._path.write_text("".join(f"{name}\n" for name in sorted(self._held)), "utf-8")
