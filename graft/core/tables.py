"""The tables of a run in Parquet files, which a device does without, and without pyarrow."""

import dataclasses
from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from graft.core.files import AnyPath, replace_file
from graft.core.ledger import ordered
from graft.core.ranges import field_ranges
from graft.core.records import LedgerEntry, PeerFindings
from graft.core.results import ResultRow
from graft.core.settings import RENAMED_METHODS
from graft.errors import RunError

_COLUMNS: dict[Any, pa.DataType] = {
    bool: pa.bool_(), int: pa.int64(), float: pa.float64(),
    list[str]: pa.list_(pa.string()), list[list[float]]: pa.list_(pa.list_(pa.float32())),
}  # fmt: skip


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


LEDGER_SCHEMA = table_schema(LedgerEntry)


def ledger_table(entries: Sequence[LedgerEntry]) -> pa.Table:
    """The entries as an Arrow table of ``LEDGER_SCHEMA``."""
    columns = [[getattr(entry, name) for entry in entries] for name in LEDGER_SCHEMA.names]
    return pa.table(columns, schema=LEDGER_SCHEMA)


def ledger_entries(table: pa.Table) -> list[LedgerEntry]:
    """The table's rows as entries; raises RunError where its columns are not the ledger's."""
    if table.schema.names != LEDGER_SCHEMA.names:
        raise RunError(f"ledger columns: got {table.schema.names}, wanted {LEDGER_SCHEMA.names}")
    return [LedgerEntry(**row) for row in table.to_pylist()]


def write_ledger(entries: Iterable[LedgerEntry], path: AnyPath) -> None:
    """Write the ledger in canonical order."""
    write_table(ledger_table(ordered(entries)), path)


def read_ledger(path: AnyPath) -> list[LedgerEntry]:
    """Read a ledger written by ``write_ledger``; raises RunError where it cannot be read."""
    try:
        return ledger_entries(read_table(path))
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise RunError(f"ledger {path}: {error}") from error


RESULTS_SCHEMA = table_schema(ResultRow)


PEERS_SCHEMA = table_schema(PeerFindings)


# Runs from before labels and amounts, budgets, growth, peers, traces, and the simulated clock,
# lack the last columns.
_FORMER_WIDTHS = [len(RESULTS_SCHEMA) - n for n in (3, 4, *(7 + n for n in (0, 4, 6, 9)))]


def results_table(rows: Iterable[ResultRow]) -> pa.Table:
    """The rows as an Arrow table, ordered by (round, domain, method)."""
    arranged = sorted(rows, key=lambda r: (r.round_index, r.domain_id, r.method))
    return pa.Table.from_pylist([dataclasses.asdict(r) for r in arranged], schema=RESULTS_SCHEMA)


def write_results(rows: Iterable[ResultRow], path: AnyPath) -> None:
    """Write the results atomically."""
    write_table(results_table(rows), path)


def read_results(path: AnyPath) -> list[ResultRow]:
    """Read what ``write_results`` wrote; raises RunError where it cannot be read."""
    try:
        table = read_table(path)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise RunError(f"results {path}: {error}") from error
    names = RESULTS_SCHEMA.names
    if table.schema.names not in (names, *(names[:width] for width in _FORMER_WIDTHS)):
        raise RunError(f"results columns: got {table.schema.names}, wanted {names}")
    # Runs from before version 0.2 call the training of initial domains "founder".
    rows = table.to_pylist()
    return [
        ResultRow(**row | {"method": RENAMED_METHODS.get(row["method"], row["method"])})
        for row in rows
    ]


def write_peers(peers: Iterable[PeerFindings], path: AnyPath) -> None:
    """Write what peers found in a round, atomically."""
    rows = [dataclasses.asdict(each) for each in peers]
    write_table(pa.Table.from_pylist(rows, schema=PEERS_SCHEMA), path)


def read_peers(path: AnyPath) -> list[PeerFindings]:
    """What ``write_peers`` wrote; none of a run from before. Raises RunError for anything else."""
    if not path.exists():
        return []
    try:
        return [PeerFindings(**row) for row in read_table(path).to_pylist()]
    except (TypeError, pa.ArrowInvalid) as error:
        raise RunError(f"peers {path}: {error}") from error
