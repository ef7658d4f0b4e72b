"""The domain folder, the layout of users' own data: one small table, one array file a domain.

``dataset.toml`` states name, modality, classes, channels, sample_shape, rate_hz (left out for
images), licence and, where one person has several domains, a ``[persons]`` table from domain
id to person id. ``domains/<id>.npz`` holds ``x`` (N, *sample_shape), ``y`` (N,) and optionally
``group`` (N,) and ``split`` (N,), rows in time order.

Legend: N rows of a domain.
"""

import io
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.core.files import make_folder, replace_file
from graft.core.records import DOMAIN_ID, NAME_RULE, FloatArray, IntArray, Task
from graft.data.dataset_table import DatasetTable, read_dataset, write_dataset
from graft.data.domain import DomainData, World
from graft.data.unpacking import DOMAIN_LIMITS, check_array_header, check_zip
from graft.errors import (
    DataError,
    DatasetFormatError,
    DomainClassError,
    DomainEmptyError,
    DomainShapeError,
    DomainValueError,
)

_AnyArray = npt.NDArray[Any]
_REQUIRED_ARRAYS = ("x", "y")
_OPTIONAL_ARRAYS = ("group", "split")
# float32 holds every integer up to here exactly; a larger one would be changed in silence.
_LARGEST_EXACT = 2**24


class FolderWorld:
    """A domain folder as a World; every ``load`` reads and checks one file.

    Raises DatasetFormatError where the folder or its table is not in the layout; ``load``
    raises the DataError that names what is wrong with the domain.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table = read_dataset(path)
        self._domain_ids = _list_domains(path)
        unknown = sorted(set(self._table.persons) - set(self._domain_ids))
        if unknown:
            raise DatasetFormatError(
                f"{path / 'dataset.toml'}: persons: got the domain {unknown[0]!r}, "
                "wanted only domains that have a file"
            )

    @property
    def table(self) -> DatasetTable:
        """What ``dataset.toml`` states."""
        return self._table

    @property
    def task(self) -> Task:
        return self._table.task

    @property
    def domain_ids(self) -> Sequence[str]:
        """Every domain's id, sorted."""
        return self._domain_ids

    def person(self, domain_id: str) -> str:
        """The person in the table, or the domain itself where the table has none."""
        return self._table.persons.get(domain_id, domain_id)

    def load(self, domain_id: str) -> DomainData:
        """One domain's rows, checked; raises a subclass of DataError."""
        path = _domain_path(self._path, domain_id)
        return _read_domain(path, domain_id, self._table.task)


def write_domain(folder: Path, data: DomainData, *, compressed: bool = True) -> None:
    """Write ``domains/<id>.npz`` whole or not at all; equal data gives equal bytes.

    Parameters
    ----------
    folder
        The folder of ``dataset.toml``.
    data
        Its values are checked when they are loaded, not here.
    compressed
        Sensors' windows shrink by a tenth or two and take four times as long to read, so a world
        that is read repeatedly is quicker without.

    Raises
    ------
    DatasetFormatError
        An id or lengths that ``FolderWorld`` would refuse.
    DomainEmptyError
        No rows.
    """
    path = _domain_path(folder, data.domain_id)
    arrays: dict[str, _AnyArray] = {
        "x": data.x.astype(np.float32),
        "y": data.y_N.astype(np.int64),
        "group": data.group_N.astype(np.int64),
    }
    if data.split_N is not None:
        arrays["split"] = data.split_N.astype(np.int8)
    _check_lengths(path, arrays)
    packed = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, array in arrays.items():
            plain = io.BytesIO()
            np.lib.format.write_array(plain, np.ascontiguousarray(array), allow_pickle=False)
            # A bare ZipInfo carries a fixed date and mode; the clock must not reach the bytes.
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = method
            archive.writestr(entry, plain.getvalue())
    replace_file(path, packed.getvalue(), mode=0o600)  # a person's data


@contextmanager
def new_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder ``<out>.partial`` that replaces ``out`` when the block ends without an error.

    ``overwrite`` allows that ``out`` already holds something; it goes once the new folder is whole.
    Raises DataError where it does and ``overwrite`` is off.
    """
    if out.exists() and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: got a path that already holds something, wanted an empty one")
    partial = out.with_name(out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        make_folder(partial)
        yield partial
        _replace_folder(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_world(out: Path, world: World) -> None:
    """Write a world as a domain folder; raises DataError where ``out`` already holds something."""
    with new_folder(out) as folder:
        for domain_id in world.domain_ids:
            write_domain(folder, world.load(domain_id))
        persons = {name: world.person(name) for name in world.domain_ids}
        write_dataset(
            folder,
            world.task,
            channels=[f"channel_{index}" for index in range(world.task.sample_shape[0])],
            rate_hz=None,
            licence="not stated",
            persons={name: person for name, person in persons.items() if name != person},
        )


def _replace_folder(partial: Path, out: Path) -> None:
    """Rename ``partial`` to ``out``; what was there goes only once it is replaced."""
    if not out.exists():
        partial.rename(out)
        return
    previous = out.with_name(out.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    out.rename(previous)
    partial.rename(out)
    if previous.is_dir():
        shutil.rmtree(previous)
    else:
        previous.unlink()


def _list_domains(folder: Path) -> tuple[str, ...]:
    paths = (folder / "domains").glob("*.npz")
    domain_ids = tuple(sorted(path.name.removesuffix(".npz") for path in paths))
    if not domain_ids:
        raise DatasetFormatError(
            f"{folder / 'domains'}: got no .npz file, wanted one for each domain"
        )
    for domain_id in domain_ids:
        _domain_path(folder, domain_id)
    return domain_ids


def _domain_path(folder: Path, domain_id: str) -> Path:
    if not DOMAIN_ID.fullmatch(domain_id):
        raise DatasetFormatError(f"domain id: got {domain_id!r}, wanted {NAME_RULE}")
    return folder / "domains" / f"{domain_id}.npz"


def _read_domain(path: Path, domain_id: str, task: Task) -> DomainData:
    arrays = _read_arrays(path)
    _check_lengths(path, arrays)
    x = _check_windows(path, arrays["x"], task)
    y_N = _integers(path, "y", arrays["y"])
    outside = np.flatnonzero((y_N < 0) | (y_N >= task.num_classes))
    if len(outside):
        raise DomainClassError(
            f"{path}: y: row {outside[0]}: got label {y_N[outside[0]]}, "
            f"wanted 0 to {task.num_classes - 1}"
        )
    num_present = len(np.unique(y_N))
    if num_present < 2:
        raise DomainClassError(f"{path}: y: got {num_present} class, wanted at least 2")
    group_N = (
        _integers(path, "group", arrays["group"])
        if "group" in arrays
        else np.arange(len(y_N), dtype=np.int64)
    )
    split_N: npt.NDArray[np.int8] | None = None
    if "split" in arrays:
        marks_N = _integers(path, "split", arrays["split"])
        odd = np.flatnonzero((marks_N != 0) & (marks_N != 1))
        if len(odd):
            raise DatasetFormatError(
                f"{path}: split: row {odd[0]}: got {marks_N[odd[0]]}, wanted 0 (train) or 1 (test)"
            )
        split_N = marks_N.astype(np.int8)
    return DomainData(domain_id=domain_id, x=x, y_N=y_N, group_N=group_N, split_N=split_N)


def _read_arrays(path: Path) -> dict[str, _AnyArray]:
    if not path.is_file():
        raise DatasetFormatError(f"{path}: got no such file, wanted the domain's arrays")
    try:
        # Pickles run code when they are read: a data file never needs one.
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DatasetFormatError(f"{path}: got a single array, wanted an npz archive")
        with archive:
            names = set(archive.files)
            missing = [name for name in _REQUIRED_ARRAYS if name not in names]
            if missing:
                raise DatasetFormatError(
                    f"{path}: got the arrays {sorted(names)}, wanted {missing[0]!r} among them"
                )
            unknown = sorted(names - {*_REQUIRED_ARRAYS, *_OPTIONAL_ARRAYS})
            if unknown:
                raise DatasetFormatError(
                    f"{path}: got the unknown array {unknown[0]!r}, "
                    f"wanted only {[*_REQUIRED_ARRAYS, *_OPTIONAL_ARRAYS]}"
                )
            if archive.zip is not None:  # it is None only after it was closed
                _check_size(path, archive.zip)
            return {name: archive[name] for name in sorted(names)}
    # Encrypted members raise RuntimeError.
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DatasetFormatError(
            f"{path}: got a file that cannot be read ({error}), wanted an npz archive "
            "of plain arrays"
        ) from error


def _check_size(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise DatasetFormatError for an archive that takes more memory than its data need."""
    check_zip(str(path), archive, DOMAIN_LIMITS)
    for entry in archive.infolist():
        with archive.open(entry) as file:
            check_array_header(f"{path}: {entry.filename}", file, entry.file_size)


def _check_lengths(path: Path, arrays: Mapping[str, _AnyArray]) -> None:
    lengths = {name: len(array) if array.ndim else None for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise DatasetFormatError(f"{path}: got the lengths {lengths}, wanted equal ones")
    if lengths["x"] == 0:
        raise DomainEmptyError(f"{path}: got 0 rows, wanted at least 1")


def _check_windows(path: Path, x: _AnyArray, task: Task) -> FloatArray:
    if x.shape[1:] != task.sample_shape:
        raise DomainShapeError(
            f"{path}: x: got rows of shape {x.shape[1:]}, wanted {task.sample_shape}"
        )
    if x.dtype.kind not in "fiu":
        raise DomainShapeError(f"{path}: x: got dtype {x.dtype}, wanted floats or integers")
    if x.dtype.kind in "iu" and (x.max() > _LARGEST_EXACT or x.min() < -_LARGEST_EXACT):
        raise DomainValueError(
            f"{path}: x: got an integer beyond {_LARGEST_EXACT}, wanted what float32 holds exactly"
        )
    with np.errstate(over="ignore"):  # a float64 too large for float32 is found below
        converted: FloatArray = x.astype(np.float32, copy=False)
    finite_N = np.isfinite(converted).reshape(len(x), -1).all(1)
    if not finite_N.all():
        raise DomainValueError(
            f"{path}: x: row {int(np.argmin(finite_N))}: got NaN or infinity, wanted finite float32"
        )
    return converted


def _integers(path: Path, name: str, array: _AnyArray) -> IntArray:
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DomainShapeError(
            f"{path}: {name}: got {array.dtype} of shape {array.shape}, wanted integers (N,)"
        )
    return array.astype(np.int64)
