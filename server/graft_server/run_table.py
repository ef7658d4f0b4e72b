"""The tables of run.toml: a run's configuration, seed, versions, world, engine and outcome."""

import platform
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from types import MappingProxyType
from typing import Any

import tomli_w

from graft.core.config import ExpansionConfig
from graft.core.config_files import config_to_dict
from graft.core.files import AnyPath, replace_file
from graft.core.task_table import task_to_table
from graft.data.domain import World
from graft.errors import RunError
from graft_server.durability import boot_id

FLOWER: Mapping[str, str | bool] = MappingProxyType({"name": "flower"})
_PACKAGES = ("graft-fl", "flwr", "ray", "torch", "numpy", "protobuf", "grpcio")


def new_run(
    run_id: str, config: ExpansionConfig, world: World, engine: Mapping[str, str | bool]
) -> dict[str, Any]:
    """The tables of a run that begins now."""
    return {
        "run": {
            "id": run_id,
            "seed": config.seed,
            "status": "running",
            "started": now(),
            "boot": boot_id(),
            "hash": "",
            "reason": "",
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        "world": {
            "name": world.task.name,
            **task_to_table(world.task),
            "domains": len(world.domain_ids),
        },
        "engine": dict(engine),
        "config": config_to_dict(config),
    }


def read_run(folder: AnyPath) -> dict[str, Any]:
    """The tables of the folder's run; raises RunError where there is none."""
    try:
        return tomllib.loads((folder / "run.toml").read_text("utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"run folder {folder}: got no run.toml, wanted a run's") from error
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{folder / 'run.toml'}: not TOML: {error}") from error


def write_run(folder: AnyPath, tables: dict[str, Any]) -> None:
    """Replace the folder's run.toml."""
    replace_file(folder / "run.toml", tomli_w.dumps(tables).encode())


def now() -> str:
    """The time now in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
