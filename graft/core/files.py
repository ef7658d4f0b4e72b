"""Where files lie, here or on any file system that fsspec knows; each is written whole."""

import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from upath import UPath

from graft.errors import RunError

AnyPath = Path | UPath
Row = TypeVar("Row")
_TAIL_BYTES = 65_536


def open_path(name: str) -> AnyPath:
    """The path of a name: a local one, or a URL such as s3://bucket/run or ftp://host/run."""
    if "://" not in name:
        return Path(name).absolute()
    # Another process may have written what a listing of before does not show.
    return UPath(name, use_listings_cache=False)


def replace_file(path: AnyPath, content: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write ``content`` to ``path``; a reader sees the old file or the whole new one.

    Any number of writers may do so at once. Of a local file, ``mode`` is the new file's, and it
    is never open to more people than that, nor are folders that are made for it; ``durable``: wait
    for the disk, so that content and name outlive a power cut.
    """
    make_folder(path.parent, private=mode == 0o600, durable=durable)
    if not isinstance(path, Path):
        temporary = path.parent / f".partial-{uuid.uuid4().hex}"
        path.fs.pipe_file(temporary.path, content)
        path.fs.mv(temporary.path, path.path)
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(name, mode)  # mkstemp made it for its owner alone
        os.replace(name, path)
        if durable:
            sync_path(path.parent)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # of a write
            error.filename = str(path)
        raise


def place_file(temporary: Path, path: AnyPath, *, durable: bool = True) -> None:
    """Move a finished local file to ``path``; a reader sees the old file or the whole new one.

    It keeps its mode. ``durable``: wait for the disk.
    """
    make_folder(path.parent, durable=durable)
    if not isinstance(path, Path):
        beside = path.parent / f".partial-{uuid.uuid4().hex}"
        path.fs.put_file(str(temporary), beside.path)
        path.fs.mv(beside.path, path.path)
        temporary.unlink()
        return
    if durable:
        sync_path(temporary)
    try:
        os.replace(temporary, path)
        if durable:
            sync_path(path.parent)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        nearer = path.with_name(f".partial-{uuid.uuid4().hex}")
        shutil.copy2(temporary, nearer)  # from another file system
        place_file(nearer, path, durable=durable)
        temporary.unlink()


def sync_path(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without that for folders
            raise
    finally:
        os.close(handle)


def make_folder(folder: AnyPath, *, private: bool = False, durable: bool = False) -> None:
    """Make a folder and those above it where they are missing.

    Only their owner may write in them, whatever the umask; ``private``: or read them. Folders that
    exist keep their mode. ``durable``: wait for the disk.
    """
    if not isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
        return
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(new):
        each.mkdir(mode=0o700 if private else 0o755, exist_ok=True)
        if durable:
            sync_path(each.parent)
    if not folder.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))


@contextmanager
def lock_file(path: Path, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Lock a file, in which the process writes its id, for as long as the block lasts.

    Raises RunError, which names the other process, where one has it after ``wait_s``. The system
    unlocks the file of a process that ends, however it ends.
    """
    make_folder(path.parent)
    until_s = time.monotonic() + wait_s
    with path.open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until_s:
                    file.seek(0)
                    holder = file.read(20).strip() or "another"
                    raise RunError(f"{what}: got process {holder} in it, wanted none") from error
                time.sleep(0.2)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def working_file(folder: Path, prefix: str) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file for its owner alone, by path and open; removed unless it is moved away."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=prefix)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield Path(name), file
    finally:
        Path(name).unlink(missing_ok=True)


def remove_tree(path: AnyPath) -> None:
    """Remove a folder and all in it; nothing where there is none."""
    if isinstance(path, Path):
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.fs.rm(path.path, recursive=True)


class LineFile:
    """Appends JSON lines that survive a killed process, each written whole at once.

    One writer a path. Opening cuts off lines at the end that are torn or no JSON, as a killed
    writer, a full disk or a power cut leaves them. Beyond ``max_bytes`` the file becomes
    ``<name>.1``, in place of an earlier one, and a new one begins.
    """

    def __init__(self, path: Path, max_bytes: int | None = None) -> None:
        make_folder(path.parent)
        self._path = path
        self._max_bytes = max_bytes
        self._file = path.open("a+b", buffering=0)
        self._end = self._cut_torn_lines()

    def _cut_torn_lines(self) -> int:
        """Read from the end, for a meter's file grows for months; returns the length."""
        end = self._file.seek(0, os.SEEK_END)
        while end:
            tail = b""
            start = end
            while start and b"\n" not in tail[:-1]:
                start = max(0, start - _TAIL_BYTES)
                self._file.seek(start)
                tail = self._file.read(end - start)
            last = tail.rfind(b"\n", 0, -1) + 1
            if tail.endswith(b"\n") and _is_json(tail[last:]):
                break
            end = start + last
        self._file.truncate(end)
        return end

    def append(self, row: dict[str, Any]) -> None:
        """Append one line; it is with the operating system when this returns.

        Raises RunError where it is not written whole; what was written of it is cut off again.
        """
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        if self._max_bytes is not None and self._end and self._end + len(line) > self._max_bytes:
            self._file.close()
            os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
            self._file, self._end = self._path.open("a+b", buffering=0), 0
        try:
            written = os.write(self._file.fileno(), line)
        except OSError as error:
            raise RunError(f"{self._path}: cannot write a line: {error}") from error
        if written != len(line):
            self._file.truncate(self._end)
            raise RunError(f"{self._path}: wrote {written} of {len(line)} bytes of a line")
        self._end += written

    def close(self) -> None:
        self._file.close()


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def read_lines(path: Path, parse: Callable[[dict[str, Any]], Row]) -> list[Row]:
    """What ``parse`` makes of every whole line, in order; a torn last line is left out.

    The lines of ``<name>.1`` come first, where the file was rotated.
    Raises RunError for a missing file, or a line that ``parse`` has no use for (ValueError,
    TypeError, KeyError).
    """
    former = path.with_name(f"{path.name}.1")
    try:
        lines = former.read_bytes().split(b"\n")[:-1] if former.exists() else []
        lines += path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse(dict(json.loads(line))))
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path}, line {number}: {error!r}") from error
    return rows
