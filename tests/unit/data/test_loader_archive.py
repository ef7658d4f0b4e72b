"""Folder, tar and zip of the same originals read alike; nothing leads outside."""

import io
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from graft.data.public.archives import open_originals, unpack_lzw
from graft.data.unpacking import UnpackLimits
from graft.errors import DatasetFormatError

SMALL = UnpackLimits(num_bytes=1 << 20, members=3, free_bytes=1 << 10, ratio=20)

FILES = {"top/RawData/a2.txt": b"two", "top/RawData/a10.txt": b"ten", "top/README": b"read"}


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:xz" if path.name.endswith("xz") else "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def write_source(kind: str, tmp_path: Path) -> Path:
    source = tmp_path / ("folder" if kind == "folder" else f"set{kind}")
    if kind == "folder":
        for name, content in FILES.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
    elif kind == ".zip":
        write_zip(source, FILES)
    else:
        write_tar(source, FILES)
    return source


@pytest.mark.parametrize("kind", ["folder", ".tar.xz", ".tar.gz", ".zip"])
def test_every_kind_of_source_gives_the_same_files_in_natural_order(
    kind: str, tmp_path: Path
) -> None:
    with open_originals(write_source(kind, tmp_path)) as originals:
        found = originals.matching(r"RawData/a(\d+)\.txt")
        assert [match[2] for _, match in found] == ["2", "10"]
        assert [originals.read(name) for name, _ in found] == [b"two", b"ten"]


def test_a_folder_that_holds_only_an_archive_stands_for_it(tmp_path: Path) -> None:
    write_tar(tmp_path / "set.tar.xz", FILES)
    (tmp_path / "LICENSE").write_text("free")
    with open_originals(tmp_path) as originals:
        assert originals.only("README", "README") == b"read"


def test_a_zip_within_a_zip_is_read_as_one(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("RawData/a2.txt", b"two")
    write_zip(tmp_path / "set.zip", {"set inner.zip": inner.getvalue(), "README": b"read"})
    with open_originals(tmp_path / "set.zip") as originals:
        assert originals.only(r"RawData/a2\.txt", "a2.txt") == b"two"
        assert originals.only("README", "README") == b"read"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with (
        open_originals(write_source("folder", tmp_path)) as originals,
        pytest.raises(DatasetFormatError, match=r"RawData/labels\.txt"),
    ):
        originals.only(r"RawData/labels\.txt", "RawData/labels.txt")


def test_the_same_tail_in_two_folders_is_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "set.zip", {"a/README": b"1", "b/README": b"2"})
    with (
        open_originals(tmp_path / "set.zip") as originals,
        pytest.raises(DatasetFormatError, match="twice"),
    ):
        originals.only("README", "README")


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "a\nb", "a" * 2000]
)
def test_a_member_that_leads_outside_is_refused(name: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "set.tar.gz", {name: b"x"})
    with (
        pytest.raises(DatasetFormatError, match="wanted a path inside"),
        open_originals(tmp_path / "set.tar.gz"),
    ):
        pass


def test_a_link_in_a_folder_that_leads_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    os.symlink(tmp_path / "secret", folder / "README")
    with (
        open_originals(folder) as originals,
        pytest.raises(DatasetFormatError, match="links outside"),
    ):
        originals.only("README", "README")


def test_missing_unknown_and_damaged_sources_are_format_errors(tmp_path: Path) -> None:
    (tmp_path / "set.rar").write_bytes(b"x")
    (tmp_path / "bad.zip").write_bytes(b"x")
    write_tar(tmp_path / "cut.tar.xz", {"a": os.urandom(5000)})
    whole = (tmp_path / "cut.tar.xz").read_bytes()
    (tmp_path / "cut.tar.xz").write_bytes(whole[:2000])
    for name in ("none", "set.rar", "bad.zip", "cut.tar.xz"):
        with pytest.raises(DatasetFormatError, match=name), open_originals(tmp_path / name):
            pass


def pack_lzw(plain: bytes, max_bits: int, reset_at: int = 0) -> bytes:
    """Unix compress in block mode; forgets its table after ``reset_at`` bytes."""
    bits: list[str] = []
    table = {bytes([value]): value for value in range(256)}
    width, free, in_group = 9, 257, 0

    def emit(code: int) -> None:
        nonlocal width, in_group
        bits.append(format(code, f"0{width}b")[::-1])
        in_group += 1
        if free > (1 << width) - 1 and width < max_bits:
            bits.append("0" * (width * (-in_group % 8)))
            width, in_group = width + 1, 0

    word = b""
    for count, value in enumerate(plain):
        if reset_at and count == reset_at:
            emit(table[word])
            free = 257
            emit(256)
            if in_group:
                bits.append("0" * (width * (-in_group % 8)))
            width, in_group = 9, 0
            table = {bytes([byte]): byte for byte in range(256)}
            word = b""
        longer = word + bytes([value])
        if longer in table:
            word = longer
            continue
        emit(table[word])
        if free < 1 << max_bits:
            table[longer] = free
            free += 1
        word = longer[-1:]
    emit(table[word])
    stream = "".join(bits)
    body = bytes(int(stream[i : i + 8][::-1], 2) for i in range(0, len(stream), 8))
    return bytes([0x1F, 0x9D, 0x80 | max_bits]) + body


@pytest.mark.parametrize(("max_bits", "reset_at"), [(10, 0), (16, 0), (12, 9_001)])
def test_unpacking_undoes_unix_compress(max_bits: int, reset_at: int) -> None:
    plain = b"".join(b"%4d %4d\n" % (i * 7 % 500, i * i % 500) for i in range(2_000)) + b"aaaaaaa"
    assert unpack_lzw(pack_lzw(plain, max_bits, reset_at)) == plain


def test_what_compress_did_not_write_is_refused() -> None:
    with pytest.raises(DatasetFormatError):
        unpack_lzw(b"PK\x03\x04")


def bomb(kind: str, tmp_path: Path, *, size: int, members: int = 1) -> Path:
    """An archive of zeros: a thousandth of what it unpacks to."""
    path, files = tmp_path / f"bomb{kind}", {f"{n}.txt": bytes(size) for n in range(members)}
    if kind == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif kind == ".zip.zip":
        inner = bomb(".zip", tmp_path, size=size, members=members)
        write_zip(path, {"inner.zip": inner.read_bytes()})
    else:
        write_tar(path, files)
    return path


@pytest.mark.parametrize("kind", [".zip", ".zip.zip", ".tar.gz", ".tar.xz"])
def test_an_archive_that_unpacks_to_much_more_than_it_is_is_refused(
    kind: str, tmp_path: Path
) -> None:
    for size, words in ((1 << 18, "bytes unpacked"), (1 << 21, "bytes unpacked")):
        with (
            pytest.raises(DatasetFormatError, match=words),
            open_originals(bomb(kind, tmp_path, size=size), SMALL),
        ):
            pass
    with (
        pytest.raises(DatasetFormatError, match="members"),
        open_originals(bomb(kind, tmp_path, size=1, members=4), replace(SMALL, free_bytes=1 << 17)),
    ):
        pass
    with open_originals(
        bomb(kind, tmp_path, size=1, members=3), replace(SMALL, free_bytes=1 << 17)
    ):
        pass


def test_a_zip_of_two_members_of_one_name_or_encrypted_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.txt", b"two")
    with pytest.raises(DatasetFormatError, match="one name"), open_originals(path):
        pass
    write_zip(path, {"a.txt": b"one"})
    raw = bytearray(path.read_bytes())
    for at in (6, raw.index(b"PK\x01\x02") + 8):
        raw[at] |= 1  # the flag of encryption
    path.write_bytes(raw)
    with open_originals(path) as originals, pytest.raises(DatasetFormatError, match="encrypted"):
        originals.read("a.txt")


def test_compress_that_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack_lzw(bytes(1 << 17), 16)
    monkeypatch.setattr("graft.data.public.archives.ORIGINALS_LIMITS", SMALL)
    with pytest.raises(DatasetFormatError, match="bytes unpacked"):
        unpack_lzw(packed)
