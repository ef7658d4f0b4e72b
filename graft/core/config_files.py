"""The configuration in files, tables and settings: read, written and changed."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel

from graft.core.config import ExpansionConfig
from graft.core.plugins import find_section, load_references
from graft.core.settings import build_settings
from graft.errors import ConfigError


def config_from_dict(table: Mapping[str, Any], *, load_plug_ins: bool = False) -> ExpansionConfig:
    """The configuration of nested tables.

    Parameters
    ----------
    table : mapping
        Any part of what ``config_to_dict`` gives; a table that no section of ``ExpansionConfig``
        has the name of is the section of a method.
    load_plug_ins : bool
        Import what is named "package.module:attribute".

    Raises
    ------
    ConfigError
        For an unknown key, a wrong type, a value out of bounds, or a plug-in that is missing.
    """
    known = {item.name for item in dataclasses.fields(ExpansionConfig)}
    own = {name for name, value in table.items() if name not in known and isinstance(value, dict)}
    config = build_settings(ExpansionConfig, {name: table[name] for name in table.keys() - own})
    if load_plug_ins:
        load_references(config.plug_ins)
    sections = dict(config.sections)
    for name in own:
        cls = find_section(name)
        if cls is None:
            build_settings(ExpansionConfig, {name: table[name]})  # raises, as for any unknown key
            continue
        values = {**sections.get(name, {}), **table[name]}
        sections[name] = config_to_dict(build_settings(cls, values, f"{name}."))
    return dataclasses.replace(config, sections=sections) if own else config


def config_to_dict(config: Any) -> dict[str, Any]:
    """The configuration as nested plain tables; unset (None) keys are left out."""
    table: dict[str, Any] = {}
    is_model = isinstance(config, BaseModel)
    for name in type(config).model_fields if is_model else config.__dataclass_fields__:
        value = getattr(config, name)
        if dataclasses.is_dataclass(value) or isinstance(value, BaseModel):
            if inner := config_to_dict(value):  # a section of unset keys is none
                table[name] = inner
        elif isinstance(value, tuple):
            table[name] = list(value)
        elif value not in (None, {}):
            table[name] = value
    return table


def read_config(path: Path) -> ExpansionConfig:
    """Read a TOML file; raises ConfigError where it is missing, malformed or has unknown keys."""
    return config_from_dict(read_toml(path, "configuration"), load_plug_ins=True)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file; raises ConfigError, which calls the file ``what``."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{what} {path}: no such file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path}: not TOML: {error}") from error


def config_toml(config: ExpansionConfig) -> str:
    """The whole configuration as TOML text; ``read_config`` gives back an equal one."""
    return tomli_w.dumps(config_to_dict(config))


def with_settings(config: ExpansionConfig, changes: Mapping[str, Any]) -> ExpansionConfig:
    """A copy with dotted keys replaced, e.g. {"split.gamma": 0.05}."""
    table = config_to_dict(config)
    for dotted, value in changes.items():
        *parents, leaf = dotted.split(".")
        section = table
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise ConfigError(f"setting {dotted!r}: got {value!r}, wanted a known key")
        section[leaf] = value
    return config_from_dict(table, load_plug_ins=True)


def configure(
    config: ExpansionConfig,
    changes: Mapping[str, Any],
    *,
    data: Path | None,
    domains: int | None,
    rounds: int | None,
    gamma: float | None,
    seed: int | None,
    method: str | None,
) -> ExpansionConfig:
    """A configuration with ``changes`` by their dotted keys, then a command's own options."""
    changes = dict(changes)
    if data is not None:
        changes |= {"world.kind": "folder", "world.path": str(data.absolute())}
    if domains is not None:
        changes["world.max_domains" if data is not None else "world.domains"] = domains
    options = {"rounds": rounds, "split.gamma": gamma, "seed": seed, "method": method}
    changes |= {name: value for name, value in options.items() if value is not None}
    for name in ("devices.classes_file", "network.classes_file"):
        if name in changes:  # workers run in other folders
            changes[name] = str(Path(changes[name]).absolute())
    if method is not None and "comparisons" not in changes:
        # The default comparisons include the default method's own variant, not the new one.
        changes["comparisons"] = [name for name in config.comparisons if name != method]
    return with_settings(config, changes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunSource:
    """What a Flower run config names: a configuration, a run folder, the wait for nodes."""

    config: ExpansionConfig
    folder: Path
    join_timeout_s: float


def read_run_settings(run_config: Mapping[str, Any], run_name: str) -> RunSource:
    """Read a Flower run config.

    Its keys are ``run-folder`` (empty: ``~/.graft/runs/<run_name>``), ``config-file`` (empty:
    the defaults), ``join-timeout-s``, and any dotted key of ExpansionConfig, which wins over
    the file. Raises ConfigError for any other.
    """
    table = dict(run_config)
    folder = table.pop("run-folder", "") or Path.home() / ".graft" / "runs" / run_name
    config_file = table.pop("config-file", "")
    join_timeout_s = table.pop("join-timeout-s", 120.0)
    if type(join_timeout_s) not in (int, float):
        raise ConfigError(f"join-timeout-s: got {join_timeout_s!r}, wanted float")
    config = read_config(Path(config_file)) if config_file else ExpansionConfig()
    return RunSource(
        config=with_settings(config, table),
        folder=Path(folder).absolute(),
        join_timeout_s=float(join_timeout_s),
    )
