"""The quota of a device's folder: what was used longest ago goes, and the folder is the count."""

import os
from pathlib import Path

import pytest
from cache_parts import get_part, put_part

from graft.wire.transfer.cache import FolderCache
from graft.wire.transfer.link import Part
from graft.wire.transfer.partial_download import DIGEST_BYTES

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
SIZE = 1_000
HELD = SIZE + DIGEST_BYTES  # of a part on disk


def part(name: str) -> bytes:
    return name[0].encode() * SIZE


def fill(cache: FolderCache, *names: str) -> None:
    """Put bases, each a second after the other."""
    for name in names:
        put_part(cache, name, "base", part(name))
        age(cache, name)


def age(cache: FolderCache, *names: str, kind: Part = "base") -> None:
    for name in names:
        later = max((p.stat().st_mtime for p in cache.folder.iterdir()), default=0) + 1
        os.utime(cache.folder / f"{name}.{kind}", (later, later))


def held(cache: FolderCache) -> list[str]:
    return [name for name in (A, B, C) if cache.holds(name, "base")]


def folder_bytes(cache: FolderCache) -> int:
    return sum(path.stat().st_size for path in cache.folder.iterdir())


@pytest.mark.parametrize(
    ("room", "left"), [(3 * HELD, [A, B, C]), (3 * HELD - 1, [B, C]), (HELD, [C]), (HELD - 1, [])]
)
def test_the_part_used_longest_ago_goes_first(tmp_path: Path, room: int, left: list[str]) -> None:
    cache = FolderCache(tmp_path, room)
    for name in (A, B, C):
        put_part(cache, name, "base", part(name))
        if cache.holds(name, "base"):
            age(cache, name)
    assert held(cache) == left


def test_reading_a_part_is_using_it(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, 2 * HELD)
    for name in (A, B):
        put_part(cache, name, "base", part(name))
        os.utime(tmp_path / f"{name}.base", (1, 1) if name == A else (2, 2))
    assert get_part(cache, A, "base") == part(A)  # now the younger of the two
    put_part(cache, C, "base", part(C))
    assert held(cache) == [A, C]


def test_a_part_larger_than_the_quota_is_used_and_not_kept(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, 2 * HELD)
    fill(cache, A)
    large = b"x" * (2 * SIZE + DIGEST_BYTES + 1)
    put_part(cache, B, "base", large)
    assert held(cache) == [A]
    partial = cache.start_download(B, "base", len(large))
    partial.append(large)
    with partial.keep().file as file:
        assert file.read() == large
    assert held(cache) == [A]


def test_a_part_that_begins_to_arrive_has_its_room_at_once(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, 2 * HELD)
    fill(cache, A, B)
    partial = cache.start_download(C, "base", SIZE)
    assert held(cache) == [B]
    partial.append(part(C))
    partial.keep().file.close()
    assert held(cache) == [B, C]
    assert folder_bytes(cache) == 2 * HELD


def test_what_a_killed_process_left_is_counted_and_goes_when_its_turn_comes(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, 3 * HELD)
    cache.start_download(A, "residual", SIZE).append(part(A))  # killed: neither kept nor closed
    (tmp_path / ".partial-xyz").write_bytes(bytes(SIZE))  # killed inside a put
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        os.utime(path, (number + 1, number + 1))
    again = FolderCache(tmp_path, 3 * HELD)
    fill(again, B, C)
    assert held(again) == [B, C]
    counted = [path for path in tmp_path.iterdir() if path.suffix != ".log"]
    assert sum(path.stat().st_size for path in counted) <= 3 * HELD
    assert again.start_download(A, "residual", SIZE).num_bytes in (0, SIZE)


def test_a_half_received_part_goes_on_after_its_log_was_left_alone(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, 3 * HELD)
    cache.start_download(A, "base", SIZE).append(part(A)[:400])
    (tmp_path / f"{A}.base.partial").unlink()  # as making room does
    assert cache.start_download(A, "base", SIZE).num_bytes == 0


def test_a_push_that_never_ended_is_remembered_until_it_has(tmp_path: Path) -> None:
    cache = FolderCache(tmp_path)
    assert cache.sent_bytes(A) is None
    cache.note_sent(A, 0)
    cache.note_sent(A, 700)
    assert FolderCache(tmp_path).sent_bytes(A) == 700
    cache.note_sent(A, None)
    assert cache.sent_bytes(A) is None
