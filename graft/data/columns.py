"""A domain's files as columns: .npz, .parquet or .jsonl, or a folder of them, which are shards.

Nothing is converted here: numbers stay NumPy arrays of their dtype (memory-mapped where an .npz is
large and not compressed), and strings, encoded pictures and lists stay lists.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from graft.data.dataset_table import RATE_SUFFIX
from graft.data.unpacking import UnpackLimits, check_array_header, check_zip
from graft.errors import DatasetFormatError, DomainShapeError, DomainValueError

AnyArray = npt.NDArray[Any]
# Of each shard, an array or a list; every shard of a domain has the same columns.
Columns = dict[str, list[AnyArray | list[Any]]]
# Arrays of larger domains are read when they are indexed: 256 MiB.
EAGER_BYTES: Final = 1 << 28


@dataclass(frozen=True, slots=True)
class DomainFiles:
    """A domain's ``columns`` by name, the ``folder`` that paths in them start from, and the rates
    (Hz, by stream) that its files state."""

    columns: Columns
    folder: Path
    rates_hz: Mapping[str, float]

    def lengths(self) -> dict[str, int | None]:
        """Rows of each column; None for an array without an axis."""
        return {
            name: None
            if any(isinstance(part, np.ndarray) and not part.ndim for part in parts)
            else sum(map(len, parts))
            for name, parts in self.columns.items()
        }


def list_domains(folder: Path) -> dict[str, Path]:
    """By domain id, its file or folder in ``folder``; raises DatasetFormatError for none, or two
    of one id."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.suffix in _READERS and path.is_file():
            domain_id = path.name.removesuffix(path.suffix)
        elif path.is_dir() and not path.name.startswith(".") and shards(path):
            domain_id = path.name
        else:
            continue
        if domain_id in found:
            raise DatasetFormatError(
                f"{path}: got a second file of one domain beside {found[domain_id].name}"
            )
        found[domain_id] = path
    if not found:
        raise DatasetFormatError(
            f"{folder}: got no .npz file, .parquet file, .jsonl file or folder of them, wanted "
            "one for each domain"
        )
    return dict(sorted(found.items()))


def shards(folder: Path) -> list[Path]:
    """The files with rows in a domain's folder, in order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix in _READERS)


def column_names(path: Path) -> set[str]:
    """The columns of a domain's file or folder, without its rows where the format allows it."""
    first = shards(path)[0] if path.is_dir() else path
    try:
        if first.suffix == ".npz":
            with zipfile.ZipFile(first) as archive:
                return {name.removesuffix(".npy") for name in archive.namelist()}
        if first.suffix == ".parquet":
            from graft.data.parquet import parquet_names

            return parquet_names(first)
        with first.open("rb") as file:
            return set(json.loads(file.readline() or b"{}"))
    except _UNREADABLE as error:
        raise _unreadable(first, error) from error


def read_columns(path: Path, limits: UnpackLimits) -> DomainFiles:
    """Every column of a domain's file or folder.

    Raises DatasetFormatError where a file cannot be read, or shards have unlike columns;
    DomainShapeError where two shards state unlike rates.
    """
    if not path.exists():
        raise DatasetFormatError(f"{path}: got no such file, wanted the domain's arrays")
    files = shards(path) if path.is_dir() else [path]
    columns: Columns = {}
    rates_hz: dict[str, float] = {}
    for number, file in enumerate(files):
        try:
            part, rates = _READERS[file.suffix](file, limits)
        except _UNREADABLE as error:
            raise _unreadable(file, error) from error
        if number and part.keys() != columns.keys():
            raise DatasetFormatError(
                f"{file}: got the columns {sorted(part)}, wanted {sorted(columns)} as before"
            )
        for name, column in part.items():
            columns.setdefault(name, []).append(column)
        for name, rate_hz in rates.items():
            if rates_hz.setdefault(name, rate_hz) != rate_hz:
                raise DomainShapeError(
                    f"{file}: {name}: got {rate_hz:g} Hz, wanted {rates_hz[name]:g} as before"
                )
    return DomainFiles(columns, path if path.is_dir() else path.parent, rates_hz)


_Read = tuple[dict[str, AnyArray | list[Any]], dict[str, float]]


def _read_npz(path: Path, limits: UnpackLimits) -> _Read:
    # Pickles run code when they are read: a data file never needs one.
    archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DatasetFormatError(f"{path}: got a single array, wanted an npz archive")
    columns: dict[str, AnyArray | list[Any]] = {}
    rates: dict[str, float] = {}
    with archive:
        packed = archive.zip
        assert packed is not None  # it is None only after it was closed
        check_zip(str(path), packed, limits)
        for entry in packed.infolist():
            with packed.open(entry) as file:
                check_array_header(f"{path}: {entry.filename}", file, entry.file_size)
        for name in sorted(archive.files):
            entry = packed.getinfo(f"{name}.npy")
            is_stored = entry.compress_type == zipfile.ZIP_STORED
            if is_stored and entry.file_size > EAGER_BYTES:
                columns[name] = _mapped(path, entry)
            elif name.endswith(RATE_SUFFIX):
                rates[name.removesuffix(RATE_SUFFIX)] = float(archive[name])
            else:
                array = archive[name]
                is_text = array.dtype.kind in "US" and array.ndim == 1
                columns[name] = array.tolist() if is_text else array
    return columns, rates


def _mapped(path: Path, entry: zipfile.ZipInfo) -> AnyArray:
    """An array of an .npz, memory-mapped: its bytes lie in the file as they are."""
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)  # lengths of name and extra field in the local header
        name_bytes, extra_bytes = np.frombuffer(file.read(4), "<u2").tolist()
        file.seek(entry.header_offset + 30 + name_bytes + extra_bytes)
        version = np.lib.format.read_magic(file)
        read = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")
        shape, is_fortran, dtype = read(file)
        mapped: AnyArray = np.memmap(
            path, dtype, "r", file.tell(), shape, "F" if is_fortran else "C"
        )
        return mapped


def _read_parquet(path: Path, _: UnpackLimits) -> _Read:
    from graft.data.parquet import read_parquet  # a device whose data are other files lacks it

    return read_parquet(path)


def _read_jsonl(path: Path, _: UnpackLimits) -> _Read:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines()):
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DomainValueError(
                f"{path}: line {number + 1}: got byte {line[error.start]:#04x}, wanted UTF-8"
            ) from error
        except ValueError as error:
            raise DatasetFormatError(f"{path}: line {number + 1}: {error}, wanted JSON") from error
        if not isinstance(row, dict) or (rows and row.keys() != rows[0].keys()):
            wanted = f"the keys {sorted(rows[0])}" if rows else "an object"
            raise DatasetFormatError(
                f"{path}: line {number + 1}: got {line[:40]!r}, wanted {wanted}"
            )
        rows.append(row)
    return {name: as_array([row[name] for row in rows]) for name in (rows[0] if rows else ())}, {}


def as_array(values: Sequence[Any]) -> AnyArray | list[Any]:
    """The values as an array where all are numbers, or lists of numbers of one shape."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of unlike lengths
        return list(values)
    return array if array.dtype.kind in "fiub" else list(values)


_READERS: Mapping[str, Callable[[Path, UnpackLimits], _Read]] = MappingProxyType(
    {".npz": _read_npz, ".parquet": _read_parquet, ".jsonl": _read_jsonl}
)
# Encrypted members of an archive raise RuntimeError.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


def _unreadable(path: Path, error: BaseException) -> DatasetFormatError:
    kind = {".npz": "an npz archive of plain arrays", ".parquet": "a Parquet file"}
    wanted = kind.get(path.suffix, "JSON lines")
    return DatasetFormatError(f"{path}: got a file that cannot be read ({error}), wanted {wanted}")
