"""A domain's columns in a Parquet file, which only installations with pyarrow read and write."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graft.errors import DatasetFormatError, DomainValueError

_Columns = dict[str, npt.NDArray[Any] | list[Any]]


def parquet_names(path: Path) -> set[str]:
    """The names of a file's columns; raises ValueError for a file that is none."""
    try:
        return set(pq.read_schema(path).names)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def read_parquet(path: Path) -> tuple[_Columns, dict[str, float]]:
    """A file's columns, and the rates (Hz) that it states; raises ValueError or a DataError."""
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:  # pyarrow has a kind for each fault
        raise ValueError(str(error)) from error
    columns: _Columns = {}
    rates: dict[str, float] = {}
    for name in table.schema.names:
        if table.schema.names.count(name) > 1:
            raise DatasetFormatError(f"{path}: got two columns {name!r}, wanted one of each name")
        note = (table.schema.field(name).metadata or {}).get(b"rate_hz")
        if note is not None:
            rates[name] = float(note)
        columns[name] = _from_arrow(path, name, table.column(name))
    return columns, rates


def parquet_bytes(
    columns: Mapping[str, npt.NDArray[Any] | Sequence[Any]], rates_hz: Mapping[str, float]
) -> bytes:
    """A Parquet file of columns, each of which states its rate where it has one."""
    fields, arrays = [], []
    for name, column in columns.items():
        if isinstance(column, np.ndarray) and column.ndim > 1:
            flat = pa.array(np.ascontiguousarray(column).reshape(-1))
            array = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(column.shape[1:])))
        else:
            array = pa.array(column)
        note = {"rate_hz": f"{rates_hz[name]:g}"} if name in rates_hz else None
        fields.append(pa.field(name, array.type, metadata=note))
        arrays.append(array)
    packed = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), packed)
    return packed.getvalue()


def _from_arrow(path: Path, name: str, column: pa.ChunkedArray) -> npt.NDArray[Any] | list[Any]:
    """Numbers and lists of numbers as an array, with one axis for each depth of lists that have
    one length; all else as a list."""
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DomainValueError(f"{path}: {name}: row {row}: got no value, wanted one")
    values, shape = column.combine_chunks(), [len(column)]
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type) or (
        pa.types.is_large_list(values.type)
    ):  # fmt: skip
        flat = values.flatten()
        count = max(math.prod(shape), 1)
        lengths = pc.list_value_length(values)
        if len(set(lengths.unique().to_pylist())) > 1 or len(flat) % count:
            return list(column.to_pylist())
        shape.append(len(flat) // count)
        values = flat
    is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    if not (is_number or pa.types.is_boolean(values.type)) or values.null_count:
        return list(column.to_pylist())
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)
