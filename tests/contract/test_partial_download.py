"""What every partial download does: in memory, in a nameless file, and in a file that stays."""

import hashlib
from io import BytesIO
from pathlib import Path

import pytest

from graft.wire.payload.blocks import open_work
from graft.wire.transfer.partial_download import FilePartial, PartialDownload, WorkPartial

PIECES = [b"one", b"", b"three and some", bytes(range(256)) * 3]
WHOLE = b"".join(PIECES)


def open_file(folder: Path) -> FilePartial:
    return FilePartial(folder / "a.partial", folder / "a.log", folder / "a")


@pytest.fixture(params=["memory", "spooled", "file"])
def partial(request: pytest.FixtureRequest, tmp_path: Path) -> PartialDownload:
    if request.param == "memory":
        return WorkPartial(BytesIO(), lambda data: None)
    if request.param == "spooled":
        return WorkPartial(open_work(tmp_path))
    return open_file(tmp_path)


def test_what_is_appended_is_what_is_kept(partial: PartialDownload) -> None:
    assert (partial.num_bytes, partial.unrecorded_bytes) == (0, 0)
    held = 0
    for piece in PIECES:
        partial.append(piece)
        held += len(piece)
        assert partial.num_bytes == held
        partial.mark_recorded()
    kept = partial.keep()
    partial.close()
    with kept.file:
        assert kept.num_bytes == len(WHOLE)
        assert kept.file.read(kept.num_bytes) == WHOLE


@pytest.mark.parametrize("recorded", range(len(PIECES) + 1))
def test_a_download_opened_again_has_what_came_and_knows_what_the_ledger_has(
    tmp_path: Path, recorded: int
) -> None:
    partial = open_file(tmp_path)
    for number, piece in enumerate(PIECES):
        partial.append(piece)
        if number + 1 == recorded:
            partial.mark_recorded()
    again = open_file(tmp_path)  # without a close: the first one's process was killed
    assert again.num_bytes == len(WHOLE)
    assert again.unrecorded_bytes == sum(map(len, PIECES[recorded:]))
    again.append(b"!")
    with again.keep().file as file:
        assert file.read() == WHOLE + b"!" + hashlib.sha256(WHOLE + b"!").digest()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("cut", [0, 2, 3, 16, 17, 18, len(WHOLE) - 1, len(WHOLE)])
def test_a_torn_file_counts_up_to_its_last_whole_piece(tmp_path: Path, cut: int) -> None:
    partial = open_file(tmp_path)
    for piece in PIECES:
        partial.append(piece)
    with (tmp_path / "a.partial").open("r+b") as file:
        file.truncate(cut)
    ends = [sum(map(len, PIECES[:i])) for i in range(len(PIECES) + 1)]
    assert open_file(tmp_path).num_bytes == max(end for end in ends if end <= cut)


@pytest.mark.parametrize("name", ["a.partial", "a.log"])
@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_place_costs_what_lies_behind_it_and_no_wrong_byte_is_held(
    tmp_path: Path, name: str, seed: int
) -> None:
    partial = open_file(tmp_path)
    for piece in PIECES:
        partial.append(piece)
    content = bytearray((tmp_path / name).read_bytes())
    content[seed * 7919 % len(content)] ^= 1 << seed
    (tmp_path / name).write_bytes(content)
    again = open_file(tmp_path)
    assert again.num_bytes < len(WHOLE)
    held = again.num_bytes
    again.append(WHOLE[held:])
    with again.keep().file as file:
        assert file.read(len(WHOLE)) == WHOLE


def test_a_log_without_its_file_and_a_file_without_its_log_hold_nothing(tmp_path: Path) -> None:
    for lost in ("a.partial", "a.log"):
        partial = open_file(tmp_path)
        partial.append(WHOLE)
        (tmp_path / lost).unlink()
        assert open_file(tmp_path).num_bytes == 0
