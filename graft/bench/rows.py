"""The benchmark matrix's table: a row per data set, seed, gamma, N_p, method and target domain.

A row depends on its key and on the configuration alone: no target domain's model is a source. So
rows computed at different times may share a table, as long as their digests agree.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from graft.core.ranges import Index
from graft.core.tables import read_table, table_schema, write_table
from graft.errors import RunError


class RowKey(NamedTuple):
    """What names a row. ``num_sources`` is the N_p asked for."""

    data: str
    seed: int
    gamma: float
    num_sources: int
    method: str
    domain_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkRow:
    """One target domain's result by one method, and what it cost.

    ``person`` names the person whose data the domain is. ``bytes_*`` are the payload bytes charged
    to this method and target domain: requests, probes with rejected candidates, shipped parts,
    report, and the finished model going up. ``device_s`` is CPU time of the method's fit,
    ``peak_memory_bytes`` the memory model's figure. ``config_digest`` covers every setting but
    the key's own, ``data_digest`` the data. A failed row has ``error`` (the error's class
    name) and ``error_message``, and no numbers but its bytes.
    """

    data: str
    seed: int
    gamma: float
    num_sources: Index
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
    def key(self) -> RowKey:
        return RowKey(
            self.data, self.seed, self.gamma, self.num_sources, self.method, self.domain_id
        )


BENCHMARK_SCHEMA = table_schema(BenchmarkRow)


def write_benchmark_rows(rows: Iterable[BenchmarkRow], path: Path) -> None:
    """Write the rows atomically, in the order of their keys."""
    ordered = [dataclasses.asdict(row) for row in sorted(rows, key=lambda row: row.key)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.Table.from_pylist(ordered, schema=BENCHMARK_SCHEMA), path)


def read_benchmark_rows(path: Path) -> list[BenchmarkRow]:
    """Read what ``write_benchmark_rows`` wrote; raises RunError where it cannot be read."""
    try:
        table = read_table(path)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise RunError(f"benchmark rows {path}: {error}") from error
    if table.schema.names != BENCHMARK_SCHEMA.names:
        raise RunError(
            f"columns of {path}: got {table.schema.names}, wanted {BENCHMARK_SCHEMA.names}"
        )
    return [BenchmarkRow(**row) for row in table.to_pylist()]


def is_ablation(method: str, main: str) -> bool:
    """Whether a method is the main one without a part: "hat-initial" after "hat"."""
    return method.startswith(main + "-")
