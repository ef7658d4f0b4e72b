"""The traffic ledger: one row a message and attempt, totals, Parquet in and out."""

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from graft.core.files import AnyPath, read_table, table_schema, write_table
from graft.core.records import LedgerEntry
from graft.errors import RunError

LEDGER_SCHEMA = table_schema(LedgerEntry)
SERVER = "server"
DEPOT = "depot"


def is_upload(entry: LedgerEntry) -> bool:
    """Whether the message travelled from a domain towards the cloud."""
    return entry.sender == entry.domain_id


def total_bytes(
    entries: Iterable[LedgerEntry], keep: Callable[[LedgerEntry], bool] = lambda entry: True
) -> int:
    """Sum of payload bytes over the entries that ``keep`` accepts."""
    return sum(entry.payload_bytes for entry in entries if keep(entry))


def delivered(entries: Iterable[LedgerEntry]) -> dict[tuple[object, ...], int]:
    """Payload bytes that arrived, by round, domain, method, phase, message and receiver.

    A request that was sent again, because its device was lost, counts once. Of a model's parts all
    bytes count, those of streams that broke too: the next one went on from there.
    """
    arrived: dict[tuple[object, ...], int] = {}
    for e in sorted(entries, key=lambda e: e.attempt):
        key = (e.round_index, e.domain_id, e.method, e.phase, e.message, e.receiver)
        if e.message.startswith("payload."):
            arrived[key] = arrived.get(key, 0) + e.payload_bytes
        elif e.outcome == "ok":
            arrived[key] = e.payload_bytes
    return arrived


def ordered(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """The entries in their canonical order, which no reply order or worker count changes."""
    return sorted(entries, key=canonical_key)


def canonical_key(e: LedgerEntry) -> tuple[object, ...]:
    """What orders the ledger: every column that no clock or run's name decides."""
    return (
        e.round_index, e.domain_id, e.method, e.phase, e.message, e.receiver, e.attempt,
        e.payload_bytes, e.sender, e.wire_bytes, e.cached, e.outcome,
    )  # fmt: skip


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
