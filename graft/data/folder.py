"""The domain folder, the layout of users' own data: one small table, one file or folder a domain.

``dataset.toml`` (graft/data/dataset_table.py) states what all domains share. A domain is
``domains/<id>.npz``, ``.parquet`` or ``.jsonl``, or a folder ``domains/<id>`` of such files, which
are shards of its rows, in time order. Its columns are the streams and the outputs by their names
(``y`` is the first output), optionally ``group`` and ``split`` (N,), and ``<stream>_path`` in
place of a stream whose pictures or texts are files beside the rows.

Legend: N rows of a domain.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from graft.core.files import make_folder, place_file, replace_file, working_file
from graft.core.outputs import new_folder as new_folder
from graft.core.records import DOMAIN_ID, NAME_RULE
from graft.core.streams import Column, Lazy, Streams
from graft.core.tasks import Task
from graft.data.columns import AnyArray, DomainFiles, column_names, list_domains, read_columns
from graft.data.dataset_table import (
    PATH_SUFFIX,
    RESERVED,
    DatasetTable,
    read_dataset,
    write_dataset,
)
from graft.data.domain import DomainData, World
from graft.data.stream_columns import file_column, integers, output_column, stream_column, texts_of
from graft.data.unpacking import DOMAIN_LIMITS
from graft.errors import DatasetFormatError, DomainEmptyError, DomainShapeError

# Rows are written in blocks of so many bytes.
_BLOCK_BYTES = 1 << 24


class FolderWorld:
    """A domain folder as a World; every ``load`` reads and checks one domain.

    Parameters
    ----------
    path
        The folder of ``dataset.toml``.
    output
        The output to train, where it is not the first.

    Raises
    ------
    DatasetFormatError
        The folder or its table is not in the layout. ``load`` raises the DataError that names
        what is wrong with the domain.
    """

    def __init__(self, path: Path, output: str | None = None) -> None:
        self._path = path
        self._table = read_dataset(path)
        self._task = self._table.task.telling(output) if output else self._table.task
        self._domains = list_domains(path / "domains")
        for domain_id in self._domains:
            _check_id(domain_id)
        unknown = sorted(set(self._table.persons) - set(self._domains))
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
        return self._task

    @property
    def domain_ids(self) -> Sequence[str]:
        """Every domain's id, sorted."""
        return tuple(self._domains)

    def person(self, domain_id: str) -> str:
        """The person in the table, or the domain itself where the table has none."""
        return self._table.persons.get(domain_id, domain_id)

    def inputs(self, domain_id: str) -> tuple[str, ...]:
        """The streams that a domain has; its rows are not read."""
        if len(self.task.inputs) == 1:
            return self.task.input_names
        return _streams_of(self.task, column_names(self._file(domain_id)))

    def load(self, domain_id: str) -> DomainData:
        """One domain's rows, checked; raises a subclass of DataError.

        Pictures, and arrays that are large and lie uncompressed in an .npz, are read when they are
        indexed where a stream would take more than 256 MiB.
        """
        path = self._file(domain_id)
        return _read_domain(self._path, path, domain_id, self.task)

    def _file(self, domain_id: str) -> Path:
        _check_id(domain_id)
        return self._domains.get(domain_id, self._path / "domains" / f"{domain_id}.npz")


def write_domain(
    folder: Path, data: DomainData, *, compressed: bool = True, task: Task | None = None
) -> None:
    """Write a domain's file whole or not at all; equal data gives equal bytes.

    Parameters
    ----------
    folder
        The folder of ``dataset.toml``.
    data
        Its values are checked when they are loaded, not here.
    compressed
        Sensors' windows shrink by a tenth or two and take four times as long to read, so a world
        that is read repeatedly is quicker without; an array that is to be read from the disk as it
        is indexed must not be compressed.
    task
        Wanted where a stream is no float32 or has a name. A domain with text is written as a
        Parquet file, its text as text.

    Raises
    ------
    DatasetFormatError
        An id or lengths that ``FolderWorld`` would refuse.
    DomainEmptyError
        No rows.
    """
    path = _check_id(data.domain_id, folder)
    specs = {spec.name: spec for spec in task.inputs} if task else {}
    columns: dict[str, Any] = {}
    for name, column in _named_streams(data, task).items():
        dtype = specs[name].dtype if specs else "float32"
        is_text = bool(specs) and specs[name].is_text
        if is_text:
            columns[name] = texts_of(column[:])
        else:
            is_lazy = isinstance(column, Lazy)
            columns[name] = column if is_lazy and column.dtype == dtype else column[:].astype(dtype)
    columns["y"] = data.y_N.astype(np.int64 if data.y_N.ndim == 1 else np.float32)
    columns["group"] = data.group_N.astype(np.int64)
    if data.split_N is not None:
        columns["split"] = data.split_N.astype(np.int8)
    _check_lengths(path, {name: len(column) for name, column in columns.items()})
    if any(isinstance(column, list) for column in columns.values()):
        write_rows(folder, data.domain_id, columns)
        return
    make_folder(path.parent, private=True)
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with working_file(path.parent, ".partial-") as (partial, file):  # a person's data: 0600
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, array in columns.items():
                # A bare ZipInfo carries a fixed date and mode; the clock must not reach the bytes.
                entry = zipfile.ZipInfo(f"{name}.npy")
                entry.compress_type = method
                entry.file_size = int(np.prod(array.shape)) * array.dtype.itemsize
                with archive.open(entry, "w") as member:
                    _write_array(member, array)
        file.flush()
        place_file(partial, path)


def _write_array(file: IO[bytes], array: Any) -> None:
    """An .npy file, a block of rows at a time, so that a Lazy column is never whole in memory."""
    descr = np.lib.format.dtype_to_descr(np.dtype(array.dtype))
    header = {"descr": descr, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    row_bytes = int(np.prod(array.shape[1:])) * array.dtype.itemsize
    rows = max(1, _BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, len(array), rows):
        file.write(np.ascontiguousarray(array[start : start + rows]).data.cast("B"))


def write_rows(
    folder: Path,
    domain_id: str,
    columns: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
    rates_hz: Mapping[str, float] | None = None,
) -> None:
    """Write a domain as a Parquet file of rows, or with files beside it as a folder of both.

    Parameters
    ----------
    folder, domain_id
        The folder of ``dataset.toml``, and the domain.
    columns
        By name: arrays (N, ...), texts, or encoded pictures as bytes; ``<stream>_path`` are names
        of ``files``.
    files
        Pictures or texts by their path in the domain's folder.
    rates_hz
        By stream, rates that the rows state; reading compares them with ``dataset.toml``'s.

    Raises
    ------
    DatasetFormatError, DomainEmptyError
        As ``write_domain`` does.
    """
    path = _check_id(domain_id, folder).with_suffix("")
    path = path.with_name(f"{domain_id}.parquet") if files is None else path / "rows.parquet"
    _check_lengths(path, {name: len(column) for name, column in columns.items()})
    from graft.data.parquet import parquet_bytes

    packed = parquet_bytes(columns, rates_hz or {})
    for name, content in (files or {}).items():
        if not (path.parent / name).resolve().is_relative_to(path.parent.resolve()):
            raise DatasetFormatError(f"{path.parent}: got the file name {name!r}, wanted one below")
        replace_file(path.parent / name, content, mode=0o600)
    replace_file(path, packed, mode=0o600)


def write_world(out: Path, world: World) -> None:
    """Write a world as a domain folder; raises DataError where ``out`` already holds something."""
    with new_folder(out) as folder:
        for domain_id in world.domain_ids:
            write_domain(folder, world.load(domain_id), task=world.task)
        persons = {name: world.person(name) for name in world.domain_ids}
        write_dataset(
            folder,
            world.task,
            channels=[f"channel_{index}" for index in range(sum(world.task.sample_shape[:1]))],
            licence="not stated",
            persons={name: person for name, person in persons.items() if name != person},
        )


def _check_id(domain_id: str, folder: Path = Path()) -> Path:
    """The path of a domain's .npz; raises DatasetFormatError for an id that no file may have."""
    if not DOMAIN_ID.fullmatch(domain_id):
        raise DatasetFormatError(f"domain id: got {domain_id!r}, wanted {NAME_RULE}")
    return folder / "domains" / f"{domain_id}.npz"


def _named_streams(data: DomainData, task: Task | None) -> dict[str, Column]:
    if isinstance(data.x, Streams):
        return dict(data.x.items())
    own = data.inputs or (task.input_names if task else ("x",))
    return {own[0]: data.x}


def _streams_of(task: Task, names: set[str]) -> tuple[str, ...]:
    return tuple(n for n in task.input_names if n in names or n + PATH_SUFFIX in names)


def _read_domain(root: Path, path: Path, domain_id: str, task: Task) -> DomainData:
    files = read_columns(path, DOMAIN_LIMITS)
    columns = files.columns
    output = task.outputs[0]
    label = output.name if output.name in columns else "y"
    inputs = _streams_of(task, set(columns))
    _check_names(path, task, columns.keys(), inputs, label)
    _check_lengths(path, files.lengths())
    streams = {name: _read_stream(root, path, files, task, name) for name in inputs}
    y_N = output_column(f"{path}: {label}", output, columns[label])
    group_N = (
        integers(f"{path}: group", _whole(columns["group"]))
        if "group" in columns
        else np.arange(len(y_N), dtype=np.int64)
    )
    split_N: npt.NDArray[np.int8] | None = None
    if "split" in columns:
        marks_N = integers(f"{path}: split", _whole(columns["split"]))
        odd = np.flatnonzero((marks_N != 0) & (marks_N != 1))
        if len(odd):
            raise DatasetFormatError(
                f"{path}: split: row {odd[0]}: got {marks_N[odd[0]]}, wanted 0 (train) or 1 (test)"
            )
        split_N = marks_N.astype(np.int8)
    return DomainData(
        domain_id=domain_id,
        x=Streams(streams) if len(inputs) > 1 else streams[inputs[0]],
        y_N=y_N,
        group_N=group_N,
        split_N=split_N,
        inputs=inputs if len(task.inputs) > 1 else (),
    )


def _read_stream(root: Path, path: Path, files: DomainFiles, task: Task, name: str) -> Column:
    spec = next(spec for spec in task.inputs if spec.name == name)
    rate_hz = files.rates_hz.get(name)
    if rate_hz is not None and spec.rate_hz is not None and rate_hz != spec.rate_hz:
        raise DomainShapeError(f"{path}: {name}: got {rate_hz:g} Hz, wanted {spec.rate_hz:g}")
    if name in files.columns:
        return stream_column(f"{path}: {name}", spec, files.columns[name])
    paths = [each for part in files.columns[name + PATH_SUFFIX] for each in part]
    return file_column(f"{path}: {name}", spec, root, files.folder, paths)


def _check_names(
    path: Path, task: Task, names: Mapping[str, Any] | Any, inputs: tuple[str, ...], label: str
) -> None:
    """Raise DatasetFormatError where a column is missing, or is none that the table knows."""
    has = "arrays" if path.suffix == ".npz" else "columns"
    wanted = [task.input_names[0]] if not inputs else []
    wanted += [label] if label not in names else []
    if wanted:
        raise DatasetFormatError(
            f"{path}: got the {has} {sorted(names)}, wanted {wanted[0]!r} among them"
        )
    outputs = {spec.name for spec in task.outputs} | {"y"}
    known = [*task.input_names, *sorted(outputs), *RESERVED]
    known += [n + PATH_SUFFIX for n in inputs if n not in names]
    if unknown := sorted(set(names) - set(known)):
        raise DatasetFormatError(
            f"{path}: got the unknown {has[:-1]} {unknown[0]!r}, wanted only {known}"
        )


def _whole(parts: Sequence[Any]) -> AnyArray:
    whole: AnyArray = np.concatenate([np.asarray(part) for part in parts])
    return whole


def _check_lengths(path: Path, lengths: Mapping[str, int | None]) -> None:
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise DatasetFormatError(f"{path}: got the lengths {dict(lengths)}, wanted equal ones")
    if not next(iter(lengths.values())):
        raise DomainEmptyError(f"{path}: got 0 rows, wanted at least 1")
