"""Where files lie, here or on any file system that fsspec knows; each is written whole."""

import errno
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO, Literal, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from graft.core.ranges import field_ranges
from graft.errors import RunError

AnyPath = Path | UPath
Row = TypeVar("Row")
_TAIL_BYTES = 65_536
_COLUMNS: dict[Any, pa.DataType] = {
    bool: pa.bool_(), int: pa.int64(), float: pa.float64(),
    list[str]: pa.list_(pa.string()), list[list[float]]: pa.list_(pa.list_(pa.float32())),
}  # fmt: skip


def open_path(name: str) -> AnyPath:
    """The path of a name: a local one, or a URL such as s3://bucket/run or ftp://host/run."""
    if "://" not in name:
        return Path(name).absolute()
    # Another process may have written what a listing of before does not show.
    return UPath(name, use_listings_cache=False)


def replace_file(path: AnyPath, content: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write ``content`` to ``path``; a reader sees the old file or the whole new one.

    Any number of writers may do so at once. Of a local file, ``mode`` is the new file's, and it
    is never open to more people than that; ``durable``: wait for the disk, so that it outlives
    a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def place_file(temporary: Path, path: AnyPath, *, durable: bool = True) -> None:
    """Move a finished local file to ``path``; a reader sees the old file or the whole new one.

    It keeps its mode. ``durable``: wait for the disk first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(path, Path):
        beside = path.parent / f".partial-{uuid.uuid4().hex}"
        path.fs.put_file(str(temporary), beside.path)
        path.fs.mv(beside.path, path.path)
        temporary.unlink()
        return
    if durable:
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    try:
        os.replace(temporary, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        nearer = path.with_name(f".partial-{uuid.uuid4().hex}")
        shutil.copy2(temporary, nearer)  # from another file system
        place_file(nearer, path, durable=durable)
        temporary.unlink()


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


def table_schema(record: type, **other: pa.DataType) -> pa.Schema:
    """The columns of a record class, in the order of its fields.

    Integers have 32 bits where their range fits. ``other``: columns of other types.
    """
    ranges: Any = {name: allowed for name, _, allowed in field_ranges(record)}
    columns = []
    for name, hint in get_type_hints(record).items():
        (kind,) = {*(get_args(hint) if NoneType in get_args(hint) else (hint,))} - {NoneType}
        is_text = kind is str or get_origin(kind) is Literal
        column = pa.string() if is_text else _COLUMNS[kind]
        if kind is int and name in ranges and ranges[name].high < 2**31:
            column = pa.int32()
        columns.append((name, other.get(name, column)))
    return pa.schema(columns)


def write_table(table: pa.Table, path: AnyPath) -> None:
    """Write a Parquet file atomically."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    replace_file(path, sink.getvalue().to_pybytes(), durable=False)


def read_table(path: AnyPath) -> pa.Table:
    """Read a Parquet file; raises FileNotFoundError or, whatever is wrong with it, ArrowInvalid."""
    content = path.read_bytes()
    try:
        return pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError) as error:  # pyarrow has a kind for each fault
        raise pa.ArrowInvalid(str(error)) from error


class LineFile:
    """Appends JSON lines that survive a killed process, each written whole at once.

    One writer a path. Opening cuts off a line that an earlier writer was killed in.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        self._cut_torn_line()

    def _cut_torn_line(self) -> None:
        """Read from the end, for a meter's file grows for months."""
        end = self._file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _TAIL_BYTES)
            self._file.seek(start)
            newline = self._file.read(end - start).rfind(b"\n")
            if newline >= 0:
                self._file.truncate(start + newline + 1)
                return
            end = start
        self._file.truncate(0)

    def append(self, row: dict[str, Any]) -> None:
        """Append one line; it is with the operating system when this returns.

        Raises RunError where it is not written whole.
        """
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._file.fileno(), line)
        if written != len(line):
            raise RunError(f"{self._file.name}: wrote {written} of {len(line)} bytes of a line")

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path, parse: Callable[[dict[str, Any]], Row]) -> list[Row]:
    """What ``parse`` makes of every whole line, in order; a torn last line is left out.

    Raises RunError for a missing file, or a line that ``parse`` has no use for (ValueError,
    TypeError, KeyError).
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse(dict(json.loads(line))))
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path}, line {number}: {error!r}") from error
    return rows
