"""A run folder read whole: run.toml, ledger.parquet and results.parquet."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graft.core.config import ExpansionConfig, config_from_dict
from graft.core.files import AnyPath
from graft.core.ledger import read_ledger
from graft.core.records import LedgerEntry
from graft.core.results import ResultRow, read_results
from graft.errors import ConfigError, RunError


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What a run left behind. ``run``, ``versions`` and ``world`` are run.toml's tables."""

    run: Mapping[str, Any]
    versions: Mapping[str, Any]
    world: Mapping[str, Any]
    config: ExpansionConfig
    rows: tuple[ResultRow, ...]
    entries: tuple[LedgerEntry, ...]


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


def read_run(run_folder: AnyPath) -> RunRecord:
    """Read a run folder; raises RunError where a part is missing or cannot be read."""
    tables, config = read_tables(run_folder)
    return RunRecord(
        run=tables["run"],
        versions=tables.get("versions", {}),
        world=tables.get("world", {}),
        config=config,
        rows=tuple(read_results(run_folder / "results.parquet")),
        entries=tuple(read_ledger(run_folder / "ledger.parquet")),
    )
