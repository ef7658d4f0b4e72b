"""A simulated device holds names; the bytes stay in the store."""

from pathlib import Path

from fakes import MemoryStore
from graft_simulation.simulated_devices import ListedCache


class OnePartStore(MemoryStore):
    """Holds one part of one model."""

    def __init__(self) -> None:
        super().__init__(lambda architecture: {})
        self.parts = {("a" * 64, "exact"): b"x" * 1_000}


def test_a_held_part_costs_a_line_and_not_its_bytes(tmp_path: Path) -> None:
    path, store = tmp_path / "ann.held", OnePartStore()
    ListedCache(path, store).put("a" * 64, "exact", b"x" * 1_000)
    # An id of 64 digits, a point, the part's five letters, and a line's end.
    assert path.stat().st_size == 64 + 1 + 5 + 1
    assert ListedCache(path, store).get("a" * 64, "exact") == b"x" * 1_000


def test_nothing_is_written_before_something_is_held(tmp_path: Path) -> None:
    path = tmp_path / "devices" / "ann.held"
    held = ListedCache(path, OnePartStore())
    assert held.get("a" * 64, "exact") is None
    held.forget("a" * 64)
    assert not path.parent.exists()
