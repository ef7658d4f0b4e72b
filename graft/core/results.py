"""The results of a run: a row per domain, method and round; Parquet in and out; the run's hash."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from graft.core.files import AnyPath, read_table, write_table
from graft.core.ledger import ordered
from graft.core.records import Failure, LedgerEntry, TrainResult
from graft.core.settings import RENAMED_METHODS
from graft.errors import RunError

RESULTS_SCHEMA = pa.schema(
    [
        ("domain_id", pa.string()),
        ("method", pa.string()),
        ("round_index", pa.int32()),
        ("architecture", pa.string()),
        ("device_class", pa.string()),
        ("accuracy", pa.float64()),
        ("macro_f1", pa.float64()),
        ("num_test", pa.int64()),
        ("num_labelled", pa.int64()),
        ("num_unlabelled", pa.int64()),
        ("held_out_accuracy", pa.float64()),
        ("knowledge_quality", pa.float64()),
        ("compute_s", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("source_domains", pa.list_(pa.string())),
        ("model_id", pa.string()),
        ("error", pa.string()),
        ("error_message", pa.string()),
        ("link_class", pa.string()),
        ("simulated_compute_s", pa.float64()),
        ("simulated_s", pa.float64()),
        ("mixture", pa.list_(pa.list_(pa.float32()))),
        ("dictionary", pa.list_(pa.list_(pa.float32()))),
    ]
)
_SIMULATED = ("link_class", "simulated_compute_s", "simulated_s")
# Runs from before the traces, and from before the simulated clock too, lack the last columns.
_FORMER_WIDTHS = (len(RESULTS_SCHEMA) - 2, len(RESULTS_SCHEMA) - 2 - len(_SIMULATED))

# What a clock or the host decides stays out of the run's hash.
_UNHASHED = {"compute_s", "peak_memory_bytes"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """One domain's outcome of one method in one round.

    Round 0's rows have the method "initial domain". A failed domain has ``error`` (the error's
    class name) and ``error_message``; its numbers are None. ``compute_s`` is measured on the
    machine that ran it; ``simulated_compute_s`` is the same work on its device class, and
    ``simulated_s`` when the domain was done, from the start of the round, waiting and transfers
    over its link class included. ``mixture`` and ``dictionary`` are the rows of
    ``FusionDiagnostics``: a row a source domain, a row an epoch.
    """

    domain_id: str
    method: str
    round_index: int
    architecture: str | None = None
    device_class: str | None = None
    accuracy: float | None = None
    macro_f1: float | None = None
    num_test: int | None = None
    num_labelled: int | None = None
    num_unlabelled: int | None = None
    held_out_accuracy: float | None = None
    knowledge_quality: float | None = None
    compute_s: float | None = None
    peak_memory_bytes: int | None = None
    source_domains: list[str] = dataclasses.field(default_factory=list)
    model_id: str | None = None
    error: str | None = None
    error_message: str | None = None
    link_class: str | None = None
    simulated_compute_s: float | None = None
    simulated_s: float | None = None
    mixture: list[list[float]] | None = None
    dictionary: list[list[float]] | None = None


def result_row(report: TrainResult | Failure) -> ResultRow:
    """The row of one answer."""
    if isinstance(report, Failure):
        return ResultRow(
            domain_id=report.domain_id,
            method=report.method,
            round_index=report.round_index,
            error=report.error,
            error_message=report.message,
        )
    metrics, diagnostics = report.metrics, report.diagnostics
    return ResultRow(
        domain_id=report.domain_id,
        method=report.method,
        round_index=report.round_index,
        architecture=report.architecture,
        device_class=report.device_class,
        accuracy=metrics["accuracy"],
        macro_f1=metrics["macro_f1"],
        num_test=int(metrics["num_test"]),
        num_labelled=int(metrics["num_labelled"]),
        num_unlabelled=int(metrics["num_unlabelled"]),
        held_out_accuracy=metrics.get("held_out_accuracy"),
        knowledge_quality=metrics.get("knowledge_quality"),
        compute_s=report.compute_s,
        peak_memory_bytes=report.peak_memory_bytes,
        source_domains=list(report.source_domains),
        model_id=report.card.model_id if report.card else None,
        mixture=None if diagnostics is None else diagnostics.mixture_SQ.tolist(),
        dictionary=None
        if diagnostics is None or diagnostics.dictionary_E4 is None
        else diagnostics.dictionary_E4.tolist(),
    )


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


def run_hash(rows: Sequence[ResultRow], entries: Sequence[LedgerEntry]) -> str:
    """SHA-256 over results and payload ledger, without anything measured by a clock or host."""
    digest = hashlib.sha256()
    for row in sorted(rows, key=lambda r: (r.round_index, r.domain_id, r.method)):
        table = dataclasses.asdict(row)
        columns = tuple(
            None if name in _UNHASHED else table[name] for name in table if name not in _SIMULATED
        )
        digest.update(repr(columns).encode())
    for entry in ordered(entries):
        message = (
            entry.round_index, entry.phase, entry.method, entry.domain_id, entry.sender,
            entry.receiver, entry.message, entry.attempt, entry.payload_bytes, entry.cached,
            entry.outcome,
        )  # fmt: skip
        digest.update(repr(message).encode())
    return digest.hexdigest()
