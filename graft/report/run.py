"""A run folder as a record, and the sums over its ledger that the report shows."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from graft.core.config import ExpansionConfig
from graft.core.config_files import config_from_dict
from graft.core.files import AnyPath
from graft.core.forgetting import Forgetting, read_records
from graft.core.results import ResultRow
from graft.core.tables import LEDGER_SCHEMA, read_results, read_table
from graft.errors import ConfigError, RunError

DOWN: Final = False
UP: Final = True


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """A run folder, read whole: tables of ``run.toml``, result rows, and the ledger in the columns
    of ``LEDGER_SCHEMA``."""

    run: Mapping[str, Any]
    versions: Mapping[str, Any]
    world: Mapping[str, Any]
    config: ExpansionConfig
    rows: tuple[ResultRow, ...]
    ledger: pa.Table
    forgotten: tuple[Forgetting, ...] = ()


def read_run(run_folder: AnyPath) -> RunRecord:
    """Read a run folder; raises RunError where a part is missing or cannot be read."""
    tables, config = read_tables(run_folder)
    return RunRecord(
        run=tables["run"],
        versions=tables.get("versions", {}),
        world=tables.get("world", {}),
        config=config,
        rows=tuple(read_results(run_folder / "results.parquet")),
        ledger=read_ledger_table(run_folder / "ledger.parquet"),
        forgotten=tuple(record for record, _ in read_records(run_folder)),
    )


def read_tables(run_folder: AnyPath) -> tuple[Mapping[str, Any], ExpansionConfig]:
    """A run's ``run.toml``, whole and as its configuration; raises RunError for anything else."""
    path = run_folder / "run.toml"
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise RunError(
            f"run folder {run_folder}: got no run.toml, wanted a run's folder"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not TOML: {error}") from error
    if not isinstance(tables.get("run"), dict) or not isinstance(tables.get("config"), dict):
        raise RunError(f"{path}: got tables {sorted(tables)}, wanted [run] and [config]")
    try:
        return tables, config_from_dict(tables["config"])
    except ConfigError as error:
        raise RunError(f"{path}: its configuration is of another version: {error}") from error


def read_ledger_table(path: AnyPath) -> pa.Table:
    """Read a ledger without making a record of each message; raises RunError as ``read_run``."""
    try:
        table = read_table(path)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise RunError(f"ledger {path}: {error}") from error
    if table.schema.names != LEDGER_SCHEMA.names:
        raise RunError(f"ledger {path}: got {table.schema.names}, wanted {LEDGER_SCHEMA.names}")
    return table


def payload_by(ledger: pa.Table, *columns: str) -> dict[tuple[Any, ...], int]:
    """Payload bytes summed by ``columns`` of the ledger, or "up": whether the domain sent it."""
    ledger = ledger.append_column("up", pc.equal(ledger["sender"], ledger["domain_id"]))
    sums = ledger.group_by(columns).aggregate([("payload_bytes", "sum")])
    keys = zip(*(sums[column].to_pylist() for column in columns), strict=True)
    return dict(zip(keys, sums["payload_bytes_sum"].to_pylist(), strict=True))
