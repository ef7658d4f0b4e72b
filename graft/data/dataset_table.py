"""``dataset.toml``: the description of a domain folder; every key is checked."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import tomli_w

from graft.core.files import replace_file
from graft.core.records import DOMAIN_ID, SensorModality, Task
from graft.errors import DatasetFormatError

_REQUIRED_KEYS = ("name", "modality", "classes", "channels", "sample_shape", "licence")
_OPTIONAL_KEYS = ("rate_hz", "persons")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetTable:
    """What ``dataset.toml`` states. ``rate_hz`` is None for data that has no sampling rate."""

    task: Task
    channels: tuple[str, ...]
    rate_hz: float | None
    licence: str
    persons: Mapping[str, str]


def read_dataset(folder: Path) -> DatasetTable:
    """Read ``dataset.toml``; raises DatasetFormatError where it is missing or not acceptable."""
    path = folder / "dataset.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DatasetFormatError(f"{path}: got no such file, wanted the dataset's table") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DatasetFormatError(f"{path}: got {error}, wanted TOML") from error
    return _parse_table(path, table)


def write_dataset(
    folder: Path,
    task: Task,
    *,
    channels: Sequence[str],
    rate_hz: float | None,
    licence: str,
    persons: Mapping[str, str] | None = None,
) -> None:
    """Write ``dataset.toml`` whole or not at all.

    ``persons`` maps domain id to person id where they differ; equal arguments give equal
    bytes. Raises DatasetFormatError where ``read_dataset`` would refuse the result.
    """
    table: dict[str, Any] = {
        "name": task.name,
        "modality": task.modality,
        "classes": list(task.classes),
        "channels": list(channels),
        "sample_shape": list(task.sample_shape),
        "licence": licence,
    }
    if rate_hz is not None:
        table["rate_hz"] = float(rate_hz)
    if persons:
        table["persons"] = dict(sorted(persons.items()))
    path = folder / "dataset.toml"
    _parse_table(path, table)
    replace_file(path, tomli_w.dumps(table).encode())


def _parse_table(path: Path, table: Mapping[str, Any]) -> DatasetTable:
    def require(condition: bool, key: str, wanted: str) -> None:
        if not condition:
            raise DatasetFormatError(f"{path}: {key}: got {table.get(key)!r}, wanted {wanted}")

    unknown = sorted(set(table) - {*_REQUIRED_KEYS, *_OPTIONAL_KEYS})
    if unknown:
        raise DatasetFormatError(
            f"{path}: got the unknown key {unknown[0]!r}, "
            f"wanted one of {[*_REQUIRED_KEYS, *_OPTIONAL_KEYS]}"
        )
    for key in _REQUIRED_KEYS:
        require(key in table, key, "a value")
    for key in ("name", "licence"):
        require(isinstance(table[key], str) and bool(table[key]), key, "a string")
    modalities = get_args(SensorModality)
    require(table["modality"] in modalities, "modality", f"one of {list(modalities)}")
    for key, least in (("classes", 2), ("channels", 1)):
        names = table[key]
        fits = (
            isinstance(names, list)
            and all(isinstance(name, str) and name for name in names)
            and len(set(names)) == len(names) >= least
        )
        require(fits, key, f"at least {least} different names")
    shape = table["sample_shape"]
    fits = (
        isinstance(shape, list)
        and len(shape) in (2, 3)
        and all(type(size) is int and size >= 1 for size in shape)
    )
    require(fits, "sample_shape", "[channels, length] or [channels, height, width]")
    require(
        shape[0] == len(table["channels"]),
        "sample_shape",
        f"{len(table['channels'])} channels, as many as are named",
    )
    rate_hz: Any = table.get("rate_hz")
    fits = type(rate_hz) in (int, float) and math.isfinite(rate_hz) and rate_hz > 0
    require("rate_hz" not in table or fits, "rate_hz", "a number above 0, or no such key")
    persons = table.get("persons", {})
    fits = isinstance(persons, dict) and all(
        DOMAIN_ID.fullmatch(domain_id) and isinstance(person, str) and person
        for domain_id, person in persons.items()
    )
    require(fits, "persons", "a table from domain id to person id")
    return DatasetTable(
        task=Task(
            name=table["name"],
            modality=table["modality"],
            sample_shape=tuple(shape),
            classes=tuple(table["classes"]),
        ),
        channels=tuple(table["channels"]),
        rate_hz=None if rate_hz is None else float(rate_hz),
        licence=table["licence"],
        persons=persons,
    )
