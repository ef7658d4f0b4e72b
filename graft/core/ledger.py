"""The traffic ledger: one row a message and attempt, totals, Parquet in and out."""

from collections.abc import Callable, Iterable

from graft.core.records import LedgerEntry

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
