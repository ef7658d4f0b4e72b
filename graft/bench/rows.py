"""The evidence matrix: a row per cell of data set, seed, gamma, N_p, method and target domain.

A cell depends on its key and on the configuration alone: no target domain's model is a source. So
rows computed at different times stand in one table, as long as their digests agree.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from graft.core.files import read_table, write_table
from graft.errors import RunError

BENCHMARK_SCHEMA = pa.schema(
    [
        ("data", pa.string()),
        ("seed", pa.int64()),
        ("gamma", pa.float64()),
        ("num_sources", pa.int32()),
        ("method", pa.string()),
        ("domain_id", pa.string()),
        ("person", pa.string()),
        ("accuracy", pa.float64()),
        ("macro_f1", pa.float64()),
        ("num_labelled", pa.int64()),
        ("num_unlabelled", pa.int64()),
        ("num_test", pa.int64()),
        ("bytes_up", pa.int64()),
        ("bytes_down", pa.int64()),
        ("device_s", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("architecture", pa.string()),
        ("sources", pa.list_(pa.string())),
        ("error", pa.string()),
        ("error_message", pa.string()),
        ("config_digest", pa.string()),
        ("data_digest", pa.string()),
    ]
)


class CellKey(NamedTuple):
    """What names a cell. ``num_sources`` is the N_p asked for."""

    data: str
    seed: int
    gamma: float
    num_sources: int
    method: str
    domain_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkRow:
    """One target domain's outcome of one method, beside what it cost.

    ``person`` is whose data the domain is. ``bytes_*`` are the payload bytes charged to this
    method and target domain: requests, probes with rejected candidates, shipped parts, report, and
    the finished model going up. ``device_s`` is CPU time of the method's fit,
    ``peak_memory_bytes`` the memory model's figure. ``config_digest`` covers every setting but
    the key's own, ``data_digest`` the data. A failed cell has ``error`` (the error's class
    name) and ``error_message``, and no numbers but the bytes that it spent.
    """

    data: str
    seed: int
    gamma: float
    num_sources: int
    method: str
    domain_id: str
    person: str
    accuracy: float | None = None
    macro_f1: float | None = None
    num_labelled: int | None = None
    num_unlabelled: int | None = None
    num_test: int | None = None
    bytes_up: int
    bytes_down: int
    device_s: float | None = None
    peak_memory_bytes: int | None = None
    architecture: str | None = None
    sources: list[str] = dataclasses.field(default_factory=list)
    error: str | None = None
    error_message: str | None = None
    config_digest: str
    data_digest: str

    @property
    def key(self) -> CellKey:
        return CellKey(
            self.data, self.seed, self.gamma, self.num_sources, self.method, self.domain_id
        )


def write_benchmark_rows(rows: Iterable[BenchmarkRow], path: Path) -> None:
    """Write the rows atomically, in the order of their keys."""
    arranged = [dataclasses.asdict(row) for row in sorted(rows, key=lambda row: row.key)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.Table.from_pylist(arranged, schema=BENCHMARK_SCHEMA), path)


def read_benchmark_rows(path: Path) -> list[BenchmarkRow]:
    """Read what ``write_benchmark_rows`` wrote; raises RunError where it cannot be read."""
    try:
        table = read_table(path)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise RunError(f"evidence {path}: {error}") from error
    if table.schema.names != BENCHMARK_SCHEMA.names:
        raise RunError(
            f"evidence columns: got {table.schema.names}, wanted {BENCHMARK_SCHEMA.names}"
        )
    return [BenchmarkRow(**row) for row in table.to_pylist()]


def is_ablation(method: str, main: str) -> bool:
    """Whether a method is the main one without a part: "hat-initial" after "hat"."""
    return method.startswith(main + "-")
