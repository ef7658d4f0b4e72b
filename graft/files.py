"""Where files lie, here or on any file system that fsspec knows; each is written whole."""

import os
import shutil
import tempfile
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

AnyPath = Path | UPath


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


def remove_tree(path: AnyPath) -> None:
    """Remove a folder and all in it; nothing where there is none."""
    if isinstance(path, Path):
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.fs.rm(path.path, recursive=True)


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
