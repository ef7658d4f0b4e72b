"""Reads an original data set where it is: a folder, a .tar.xz, .tar.gz or a .zip.

Nothing is ever extracted to a path. A compressed tar is unpacked once into an unnamed
temporary file, because seeking backwards in a compressed stream starts it over.
"""

import gzip
import lzma
import os
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from graft.data.public.recordings import natural_key
from graft.data.unpacking import ORIGINALS_LIMITS, UnpackLimits, check_zip, copy_limited
from graft.errors import DatasetFormatError

_LONGEST_NAME = 1024
ARCHIVE_SUFFIXES = (".tar.xz", ".tar.gz", ".tgz", ".tar", ".zip")


@dataclass(frozen=True, kw_only=True, slots=True)
class Originals:
    """The files of one original data set, by sorted relative POSIX name."""

    label: str
    names: tuple[str, ...]
    read: Callable[[str], bytes]

    def matching(self, pattern: str) -> list[tuple[str, re.Match[str]]]:
        """Every (name, match) whose path ends in ``pattern``, below any folders; "2" before "10".

        Raises DatasetFormatError where two folders hold the same tail: which one is meant?
        """
        matcher = re.compile(rf"(?:.*/)?(?P<tail>{pattern})")
        found = [(name, match) for name in self.names if (match := matcher.fullmatch(name))]
        tails: dict[str, str] = {}
        for name, match in found:
            other = tails.setdefault(match["tail"], name)
            if other != name:
                raise DatasetFormatError(
                    f"{self.label}: got {match['tail']} twice ({other} and {name}), wanted once"
                )
        return sorted(found, key=lambda pair: natural_key(pair[0]))

    def only(self, pattern: str, wanted: str) -> bytes:
        """The bytes of the one file whose path ends in ``pattern``, called ``wanted`` in errors."""
        found = self.matching(pattern)
        if not found:
            raise DatasetFormatError(f"{self.label}: got no file {wanted}, wanted one")
        return self.read(found[0][0])


@contextmanager
def open_originals(source: Path, limits: UnpackLimits = ORIGINALS_LIMITS) -> Iterator[Originals]:
    """Open a folder or an archive of an original data set for reading.

    A folder that holds exactly one archive and no sub-folder means that archive, and a zip that
    holds exactly one other zip means both together (UCI packs some sets so). Raises
    DatasetFormatError where ``source`` is missing, of an unknown kind or damaged, has members or
    bytes beyond the limits, or where a member's name would lead outside it.
    """
    if not source.exists():
        raise DatasetFormatError(f"{source}: got no such file or folder, wanted the originals")
    path = _archive_inside(source) if source.is_dir() else source
    with ExitStack() as stack:
        try:
            if path.is_dir():
                yield _open_folder(path)
            elif path.name.endswith(".zip"):
                yield _open_zip(path, stack, limits)
            elif path.name.endswith(ARCHIVE_SUFFIXES):
                yield _open_tar(path, stack, limits)
            else:
                raise DatasetFormatError(
                    f"{path}: got an unknown kind of file, wanted a folder or one of "
                    f"{', '.join(ARCHIVE_SUFFIXES)}"
                )
        except (
            tarfile.TarError,
            zipfile.BadZipFile,
            lzma.LZMAError,
            gzip.BadGzipFile,
            EOFError,
        ) as error:
            raise DatasetFormatError(f"{path}: the archive is damaged ({error})") from error


def _archive_inside(folder: Path) -> Path:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    archives = [entry for entry in entries if entry.name.endswith(ARCHIVE_SUFFIXES)]
    if len(archives) == 1 and not any(entry.is_dir() for entry in entries):
        return archives[0]
    return folder


def _wanted_names(label: str, names: Iterable[str]) -> tuple[str, ...]:
    """The sorted names, without what macOS packs along; refuses names that lead outside."""
    wanted = []
    for name in names:
        path = PurePosixPath(name)
        inside = not path.is_absolute() and ".." not in path.parts and "\\" not in name
        if not inside or not name.isprintable() or len(name) > _LONGEST_NAME:
            raise DatasetFormatError(
                f"{label}: got the member name {name!r:.80}, wanted a path inside"
            )
        if not path.name.startswith("._"):
            wanted.append(name)
    return tuple(sorted(wanted))


def _open_folder(folder: Path) -> Originals:
    names = []
    for parent, _, files in os.walk(folder, followlinks=False):
        names += [(Path(parent) / file).relative_to(folder).as_posix() for file in files]
    root = folder.resolve()

    def read(name: str) -> bytes:
        path = (folder / name).resolve()
        if not path.is_relative_to(root):
            raise DatasetFormatError(f"{folder}: {name} links outside the folder")
        try:
            return path.read_bytes()
        except OSError as error:
            raise DatasetFormatError(f"{folder}: {name} cannot be read ({error})") from error

    return Originals(label=str(folder), names=_wanted_names(str(folder), names), read=read)


def _open_tar(path: Path, stack: ExitStack, limits: UnpackLimits) -> Originals:
    # The caller's stack closes both; the linter does not see that far.
    plain = cast("IO[bytes]", stack.enter_context(tempfile.TemporaryFile()))  # noqa: SIM115
    with _open_compressed(path) as packed:
        copy_limited(str(path), packed, plain, path.stat().st_size, limits)
    plain.seek(0)
    tar = stack.enter_context(tarfile.open(fileobj=plain, mode="r:"))  # noqa: SIM115
    # Links and devices are left out: their bytes would come from elsewhere.
    members = {}
    for number, member in enumerate(tar, start=1):
        limits.check_members(str(path), number)
        if member.isreg():
            members[member.name.removeprefix("./")] = member

    def read(name: str) -> bytes:
        stream = tar.extractfile(members[name])
        if stream is None:
            raise DatasetFormatError(f"{path}: got no file {name}, wanted a regular one")
        return stream.read()

    return Originals(label=str(path), names=_wanted_names(str(path), members), read=read)


def _open_compressed(path: Path) -> IO[bytes]:
    if path.name.endswith(".xz"):
        return cast("IO[bytes]", lzma.open(path))
    if path.name.endswith((".gz", ".tgz")):
        return cast("IO[bytes]", gzip.open(path))
    return path.open("rb")


def _open_zip(path: Path, stack: ExitStack, limits: UnpackLimits) -> Originals:
    def add(archive: zipfile.ZipFile) -> None:
        check_zip(str(path), archive, limits)
        homes.update({info.filename: archive for info in archive.infolist() if not info.is_dir()})

    def read(name: str) -> bytes:
        try:
            return homes[name].read(name)
        except (RuntimeError, zlib.error) as error:  # encrypted, or of an unknown method
            raise DatasetFormatError(f"{path}: {name} cannot be read ({error})") from error

    homes: dict[str, zipfile.ZipFile] = {}
    outer = stack.enter_context(zipfile.ZipFile(path))
    add(outer)
    nested = [name for name in homes if name.endswith(".zip")]
    if len(nested) == 1:
        add(stack.enter_context(zipfile.ZipFile(stack.enter_context(outer.open(nested[0])))))
    return Originals(label=str(path), names=_wanted_names(str(path), homes), read=read)


def unpack_lzw(packed: bytes) -> bytes:
    """The content of a ``.Z`` file of Unix compress, as UCI has its oldest originals; raises
    DatasetFormatError for other bytes, and for content beyond the limits."""
    if len(packed) < 3 or packed[:2] != b"\x1f\x9d" or not 9 <= packed[2] & 0x1F <= 16:
        raise DatasetFormatError("got bytes that Unix compress did not write, wanted a .Z file")
    max_bits, has_reset = packed[2] & 0x1F, bool(packed[2] & 0x80)
    first_free = 257 if has_reset else 256
    table = [bytes([value]) for value in range(256)] + [b""] * (first_free - 256)
    out: list[bytes] = []
    unpacked = 0
    width, position, group_start = 9, 24, 24
    previous = b""
    while position + width <= len(packed) * 8:
        start = position // 8
        code = int.from_bytes(packed[start : start + 4], "little") >> (position % 8)
        code &= (1 << width) - 1
        position += width
        if has_reset and code == 256:
            del table[first_free:]
            position = _next_group(position, group_start, width)
            width, group_start, previous = 9, position, b""
            continue
        if code > len(table) or (code == len(table) and not previous):
            raise DatasetFormatError("got a damaged .Z file, wanted one that unpacks")
        entry = table[code] if code < len(table) else previous + previous[:1]
        out.append(entry)
        unpacked += len(entry)
        ORIGINALS_LIMITS.check(".Z file", unpacked, len(packed))
        if previous and len(table) < 1 << max_bits:
            table.append(previous + entry[:1])
        previous = entry
        if len(table) == 1 << width and width < max_bits:
            position = _next_group(position, group_start, width)
            width, group_start = width + 1, position
    return b"".join(out)


def _next_group(position: int, group_start: int, width: int) -> int:
    """Codes are written in groups of eight; a change of width leaves the rest of one unused."""
    group_bits = 8 * width
    return group_start + -(-(position - group_start) // group_bits) * group_bits
