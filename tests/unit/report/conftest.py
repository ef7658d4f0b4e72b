"""A run folder made of real records, small enough to work its figures out by hand.

Round 1 holds target domains a and b, round 2 holds c. Accuracies, per target domain a, b, c:
hat 0.8, 0.9, 0.7; label-only 0.7, 0.6, 0.8; ship-all 0.6, 0.7, 0.8. Every hat target domain is
charged 250 bytes down and 10 up, every ship-all target domain 1,000 bytes down.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import tomli_w

from graft.core.config import ExpansionConfig
from graft.core.config_files import config_to_dict
from graft.core.ledger import DEPOT, SERVER
from graft.core.records import LedgerEntry, Phase
from graft.core.results import ResultRow
from graft.core.tables import ledger_table, write_ledger, write_results

ACCURACIES = {
    "hat": (0.8, 0.9, 0.7),
    "label-only": (0.7, 0.6, 0.8),
    "average-kd-all": (0.6, 0.7, 0.8),
}
TARGETS = (("a", 1), ("b", 1), ("c", 2))


def sent(
    domain_id: str,
    round_index: int,
    method: str,
    num_bytes: int,
    *,
    phase: Phase = "ship",
    up: bool = False,
) -> LedgerEntry:
    return LedgerEntry(
        run="small", round_index=round_index, phase=phase, method=method, domain_id=domain_id,
        sender=domain_id if up else DEPOT, receiver=SERVER if up else domain_id,
        message="fetch", payload_bytes=num_bytes, wire_bytes=num_bytes + 40,
        wire_source="modelled",
    )  # fmt: skip


@pytest.fixture
def config() -> ExpansionConfig:
    return ExpansionConfig(rounds=2, method="hat", comparisons=("label-only", "average-kd-all"))


@pytest.fixture
def rows() -> list[ResultRow]:
    made = [ResultRow(domain_id="f", method="initial", round_index=0, accuracy=0.1, macro_f1=0.1)]
    for method, accuracies in ACCURACIES.items():
        for (domain_id, round_index), accuracy in zip(TARGETS, accuracies, strict=True):
            row = ResultRow(
                domain_id=domain_id, method=method, round_index=round_index,
                architecture="cnn", device_class="phone", accuracy=accuracy,
                macro_f1=accuracy - 0.1, compute_s=2.0, peak_memory_bytes=1000 * round_index,
            )  # fmt: skip
            made.append(row)
    return made


@pytest.fixture
def entries() -> list[LedgerEntry]:
    made = [sent("f", 0, "hat", 7_000_000)]
    for domain_id, round_index in TARGETS:
        made += [
            sent(domain_id, round_index, "", 30, phase="profile", up=True),
            sent(domain_id, round_index, "hat", 50, phase="probe"),
            sent(domain_id, round_index, "hat", 200),
            sent(domain_id, round_index, "hat", 10, phase="report", up=True),
            sent(domain_id, round_index, "average-kd-all", 1000),
        ]
    return made


@pytest.fixture
def ledger(entries: list[LedgerEntry]) -> pa.Table:
    return ledger_table(entries)


@pytest.fixture
def with_failure() -> Callable[[Sequence[ResultRow], str, str], list[ResultRow]]:
    """The rows with one target domain's outcome under a method turned into a failure."""

    def turned(rows: Sequence[ResultRow], domain_id: str, method: str) -> list[ResultRow]:
        failed = ResultRow(
            domain_id=domain_id, method=method, round_index=1, error="DomainEmptyError",
            error_message="got 0 rows",
        )  # fmt: skip
        return [
            dataclasses.replace(failed, round_index=row.round_index)
            if (row.domain_id, row.method) == (domain_id, method)
            else row
            for row in rows
        ]

    return turned


@pytest.fixture
def make_run(
    tmp_path: Path, config: ExpansionConfig
) -> Callable[[Sequence[ResultRow], Sequence[LedgerEntry]], Path]:
    """Write a run folder of the given records."""

    def made(rows: Sequence[ResultRow], entries: Sequence[LedgerEntry]) -> Path:
        write_results(rows, tmp_path / "results.parquet")
        write_ledger(entries, tmp_path / "ledger.parquet")
        failed = any(row.error for row in rows)
        tables = {
            "run": {
                "id": "small", "started": "2026-01-02T03:04:05Z", "seed": 0, "hash": "00ff",
                "status": "failed" if failed else "complete",
            },
            "versions": {"graft": "0.1.0"},
            "world": {"name": "imu"},
            "config": config_to_dict(config),
        }  # fmt: skip
        (tmp_path / "run.toml").write_text(tomli_w.dumps(tables), "utf-8")
        return tmp_path

    return made
