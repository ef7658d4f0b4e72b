"""Rows of a table file: CSV, Parquet or JSON lines, the columns that were asked for alone.

Texts of a CSV or JSON file are given as their bytes, because bytes that are not UTF-8 are the
fault of one row and not of the file.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from graft.data.importers.accounting import RowTally
from graft.errors import DatasetFormatError

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
_BATCH = 4096
_NOT_UTF8 = "text that is not UTF-8"
# A row, with a text of any length, must fit in one block.
_BLOCK_BYTES = 1 << 25


@dataclass(frozen=True, kw_only=True, slots=True)
class RowColumns:
    """Which columns of a table name a row's domain, its class and, if any, its group."""

    domain: str = "domain"
    label: str = "label"
    group: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RowCells:
    """What a row has: its place in the table, for messages, and its cells as texts; ``values`` are
    the cells of the columns that were asked for, as they came (a text as bytes)."""

    where: str
    domain: str
    label: str
    group: str
    values: tuple[Any, ...]


def read_rows(
    path: Path, columns: RowColumns, values: Sequence[str], tally: RowTally
) -> Iterator[RowCells]:
    """The rows that have a domain and a label; every other row is counted as skipped.

    Raises DatasetFormatError for a file that is missing, damaged or of another kind, and for a
    column that it lacks or has twice.
    """
    names = [columns.domain, columns.label, *([columns.group] if columns.group else [])]
    for where, row in _table_rows(path, [*dict.fromkeys([*names, *values])], tally):
        tally.read += 1
        try:
            domain, label, *group = (cell_text(row[name]).strip() for name in names)
        except UnicodeDecodeError:
            tally.skip(_NOT_UTF8, where, unreadable=True)
            continue
        if not domain or not label:
            tally.skip(f"no {columns.label if domain else columns.domain}", where)
            continue
        yield RowCells(where=where, domain=domain, label=label, group=group[0] if group else "",
                       values=tuple(row[name] for name in values))  # fmt: skip


def cell_text(value: Any) -> str:
    """A cell's text, "" where there is none; raises UnicodeDecodeError for bytes that are not
    UTF-8."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    # A column of whole numbers with gaps is one of floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def skip_not_utf8(tally: RowTally, where: str) -> None:
    """Account for a row whose text is not UTF-8."""
    tally.skip(_NOT_UTF8, where, unreadable=True)


def _table_rows(
    path: Path, columns: Sequence[str], tally: RowTally
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row's place and its values by column; rows that cannot be parsed are skipped."""
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".parquet": _parquet_rows}
    suffix = path.suffix.casefold()
    if suffix not in TABLE_SUFFIXES or not path.is_file():
        raise DatasetFormatError(
            f"{path}: got no such table, wanted a file of {', '.join(TABLE_SUFFIXES)}"
        )
    try:
        yield from readers.get(suffix, _json_rows)(path, columns, tally)
    except (pa.ArrowException, OSError) as error:
        first_line = str(error).partition("\n")[0]
        raise DatasetFormatError(f"{path}: got {first_line}, wanted a sound table") from error


def _check_columns(path: Path, found: Sequence[str], columns: Sequence[str]) -> None:
    for column in columns:
        if list(found).count(column) != 1:
            raise DatasetFormatError(
                f"{path}: got the columns {list(found)[:20]}, wanted {column!r} once among them"
            )


def _csv_rows(
    path: Path, columns: Sequence[str], tally: RowTally
) -> Iterator[tuple[str, dict[str, Any]]]:
    delimiter = "\t" if path.suffix.casefold() == ".tsv" else ","
    with path.open("rb") as file:
        head = file.readline().decode("utf-8-sig", "replace")
    names = [name.strip() for name in next(csv.reader([head], delimiter=delimiter), [])]
    _check_columns(path, names, columns)

    def skip(row: Any) -> str:
        tally.read += 1
        reason = f"not {row.expected_columns} values as the header has"
        tally.skip(reason, f"with {row.actual_columns}", unreadable=True)
        return "skip"

    reader = pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, skip_rows=1, block_size=_BLOCK_BYTES
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.binary() for name in names},
            include_columns=list(columns),
            check_utf8=False,
            strings_can_be_null=False,
        ),
    )
    yield from _batch_rows(iter(reader))


def _parquet_rows(
    path: Path, columns: Sequence[str], _: RowTally
) -> Iterator[tuple[str, dict[str, Any]]]:
    with pyarrow.parquet.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow.names, columns)
        for column in columns:
            kind = file.schema_arrow.field(column).type
            if pa.types.is_struct(kind) or pa.types.is_map(kind):
                raise DatasetFormatError(f"{path}: {column}: got {kind}, wanted text or numbers")
        yield from _batch_rows(_bytes_of(batch) for batch in file.iter_batches(
            batch_size=_BATCH, columns=list(columns)))  # fmt: skip


def _bytes_of(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Texts as bytes: Parquet does not check that they are UTF-8, and Python would."""
    columns = [
        column.cast(pa.large_binary()) if _is_text(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _batch_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield f"row {number}", row


def _json_rows(
    path: Path, columns: Sequence[str], tally: RowTally
) -> Iterator[tuple[str, dict[str, Any]]]:
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                tally.read += 1
                tally.skip(_NOT_UTF8, where, unreadable=True)
                continue
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                tally.read += 1
                tally.skip("a line that is no JSON object", where, unreadable=True)
                continue
            seen |= row.keys()
            yield where, {column: row.get(column) for column in columns}
    if seen:
        _check_columns(path, sorted(seen), columns)
