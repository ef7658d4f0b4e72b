"""Parquet files and spreadsheets as rows, read by pyarrow and openpyxl."""

import csv
import datetime
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graft.data.importers.csv_columns import CsvColumns, match_columns
from graft.data.importers.csv_text import Advance, OpenFile, Rows, open_blocks, open_text
from graft.errors import DatasetFormatError, missing_extra

_SHEET_ROWS = 20_000


def open_recording(path: Path, columns: CsvColumns, advance: Advance) -> OpenFile:
    """A file of any kind by its name; raises DatasetFormatError for one of another kind."""
    name = path.name.casefold()
    if name.endswith(".parquet"):
        return _open_parquet(path, columns, advance)
    if name.endswith((".xlsx", ".xlsm")):
        return _open_sheet(path, columns, advance)
    return open_text(path, columns, advance)


def _open_parquet(path: Path, columns: CsvColumns, advance: Advance) -> OpenFile:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetFormatError(f"{path}: got {error}, wanted a Parquet file") from error
    names = file.schema_arrow.names
    index_of = match_columns(path, names, columns)
    is_stamp = columns.time is not None and pa.types.is_temporal(
        file.schema_arrow.field(index_of[columns.time]).type
    )

    def rows() -> Iterator[Rows]:
        start = 1
        try:
            for batch in file.iter_batches(
                1 << 17, columns=[names[at] for at in index_of.values()]
            ):
                found = {name: _plain(batch[names[at]]) for name, at in index_of.items()}
                line_L = np.arange(start, start + batch.num_rows)
                start += batch.num_rows
                yield Rows(line_L=line_L, columns=found, broken=[])
        except (pa.ArrowException, OSError) as error:
            raise DatasetFormatError(f"{path}: got {error}, wanted a Parquet file") from error
        advance(path.stat().st_size)

    return OpenFile(rows=rows(), time_kind="stamp" if is_stamp else "number")


def _plain(array: pa.Array) -> pa.Array:
    """Numbers as float64, times as seconds, all else as strings."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pa.types.is_timestamp(kind):
        nanoseconds = array.cast(pa.timestamp("ns", kind.tz)).cast(pa.int64())
        return pc.divide(nanoseconds.cast(pa.float64(), safe=False), 1e9)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return array.cast(pa.float64())
    if pa.types.is_integer(kind):
        return array.cast(pa.float64(), safe=False)
    return array.cast(pa.string())


def _open_sheet(path: Path, columns: CsvColumns, advance: Advance) -> OpenFile:
    try:
        import openpyxl  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing_extra("openpyxl", "excel") from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # zip, XML and key errors of many kinds
        raise DatasetFormatError(f"{path}: got {error}, wanted a workbook (.xlsx)") from error
    sheet = book.worksheets[0]
    found = open_blocks(path, _sheet_blocks(sheet), replace(columns, delimiter=","))
    advance(path.stat().st_size)
    if len(book.worksheets) > 1:
        found = replace(found, notes=(*found.notes, f"the first of {len(book.worksheets)} sheets"))
    return found


def _sheet_blocks(sheet: Any) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
        writer.writerow([_cell(value) for value in row])
        if not number % _SHEET_ROWS:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    if text.getvalue():
        yield text.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return " ".join(str(value).split("\n"))
