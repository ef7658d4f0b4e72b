"""``dataset.toml``: the description of a domain folder; every key is checked.

A folder of one stream states modality, channels, sample_shape and perhaps rate_hz at the top, and
its classes; a folder of several, or of another kind, has a table ``[inputs.<stream>]`` for each,
and a folder of other outputs than one of classes a table ``[outputs.<output>]`` for each.
"""

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import tomli_w

from graft.core.files import replace_file
from graft.core.records import DOMAIN_ID
from graft.core.tasks import (
    InputKind,
    InputSpec,
    Modality,
    OutputKind,
    OutputSpec,
    SensorModality,
    Task,
)
from graft.errors import DatasetFormatError

# Columns of a domain that are no stream and no output.
RESERVED: Final = ("group", "split")
PATH_SUFFIX: Final = "_path"
RATE_SUFFIX: Final = "_rate_hz"
_NAME = re.compile(rf"[A-Za-z]\w{{0,63}}(?<!{PATH_SUFFIX})(?<!{RATE_SUFFIX})")
_STREAM_KEYS = ("modality", "channels", "sample_shape")
_INPUT_KEYS = ("kind", "shape", "channels", "dtype", "rate_hz", "modality")
_OUTPUT_KEYS = ("kind", "classes")
# By kind: sizes of a sample's shape in words, the dtypes that it may have with the default first,
# and the modality by default.
_KINDS: Final[Mapping[str, tuple[str, tuple[str, ...], Modality]]] = {
    "window": ("[channels, length]", ("float32",), "sequence"),
    "audio": ("[channels, length]", ("float32",), "audio"),
    "image": ("[channels, height, width]", ("uint8", "float32"), "image"),
    "tokens": ("[length]", ("uint8", "int64"), "text"),
    "vector": ("[size]", ("float32",), "vector"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetTable:
    """What ``dataset.toml`` states.

    ``channels`` and ``rate_hz`` are those of the first stream, ``stream_channels`` the channels of
    each stream that names them; ``rate_hz`` is None for data that has no sampling rate.
    """

    task: Task
    channels: tuple[str, ...]
    rate_hz: float | None
    licence: str
    persons: Mapping[str, str]
    stream_channels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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
    channels: Sequence[str] | Mapping[str, Sequence[str]] = (),
    rate_hz: float | None = None,
    licence: str,
    persons: Mapping[str, str] | None = None,
) -> None:
    """Write ``dataset.toml`` whole or not at all; equal arguments give equal bytes.

    Parameters
    ----------
    folder, task
        Where, and what the data is.
    channels
        Names of the channels: of the only stream, or by stream, of those that name them.
    rate_hz
        Of the only stream, where its ``InputSpec`` has none.
    licence
        Of the data.
    persons
        From domain id to person id, where they differ.

    Raises
    ------
    DatasetFormatError
        ``read_dataset`` would refuse the result.
    """
    table: dict[str, Any] = {"name": task.name}
    plain = Task(
        name=task.name, modality=task.modality, sample_shape=task.sample_shape, classes=task.classes
    )
    if task.inputs == plain.inputs and not isinstance(channels, Mapping):
        table |= {"modality": task.modality, "classes": list(task.classes)}
        table |= {"channels": list(channels), "sample_shape": list(task.sample_shape)}
    table["licence"] = licence
    if "channels" in table and rate_hz is not None:
        table["rate_hz"] = float(rate_hz)
    if persons:
        table["persons"] = dict(sorted(persons.items()))
    if "channels" not in table:
        named = channels if isinstance(channels, Mapping) else {task.inputs[0].name: channels}
        table["inputs"] = {
            spec.name: _input_table(spec, named.get(spec.name, ()), rate_hz) for spec in task.inputs
        }
    if task.outputs != plain.outputs:
        table.pop("classes", None)
        table["outputs"] = {
            spec.name: {"kind": spec.kind, "classes": list(spec.classes)} for spec in task.outputs
        }
    elif "classes" not in table:
        table["outputs"] = {"y": {"kind": "classes", "classes": list(task.classes)}}
    path = folder / "dataset.toml"
    _parse_table(path, table)
    replace_file(path, tomli_w.dumps(table).encode())


def _input_table(spec: InputSpec, channels: Sequence[str], rate_hz: float | None) -> dict[str, Any]:
    table: dict[str, Any] = {"kind": spec.kind, "shape": list(spec.shape), "dtype": spec.dtype}
    table["modality"] = spec.modality
    if channels:
        table["channels"] = list(channels)
    rate_hz = spec.rate_hz if spec.rate_hz is not None else rate_hz
    return table if rate_hz is None else {**table, "rate_hz": float(rate_hz)}


class _Checked:
    """A table of ``dataset.toml`` whose values are required to be what is wanted."""

    def __init__(self, path: Path, table: Any, where: str = "") -> None:
        self.path, self.table, self.where = path, table, where
        if not isinstance(table, dict):
            raise DatasetFormatError(f"{path}: {where}got {table!r}, wanted a table")

    def require(self, condition: bool, key: str, wanted: str) -> None:
        if not condition:
            raise DatasetFormatError(
                f"{self.path}: {self.where}{key}: got {self.table.get(key)!r}, wanted {wanted}"
            )

    def only(self, known: Sequence[str]) -> None:
        if unknown := sorted(set(self.table) - {*known}):
            raise DatasetFormatError(
                f"{self.path}: {self.where}got the unknown key {unknown[0]!r}, "
                f"wanted one of {list(known)}"
            )

    def names(self, key: str, least: int) -> tuple[str, ...]:
        """The different names, ``least`` or more, of a key."""
        names = self.table.get(key, [])
        fits = (
            isinstance(names, list)
            and all(isinstance(name, str) and name for name in names)
            and len(set(names)) == len(names) >= least
        )
        self.require(fits, key, f"at least {least} different names")
        return tuple(names)

    def shape(self, key: str, dimensions: Sequence[int], words: str) -> tuple[int, ...]:
        shape = self.table.get(key)
        fits = (
            isinstance(shape, list)
            and len(shape) in dimensions
            and all(type(size) is int and size >= 1 for size in shape)
        )
        self.require(fits, key, words)
        return tuple(self.table[key])

    def rate_hz(self) -> float | None:
        rate_hz: Any = self.table.get("rate_hz")
        fits = type(rate_hz) in (int, float) and math.isfinite(rate_hz) and rate_hz > 0
        self.require("rate_hz" not in self.table or fits, "rate_hz", "a number above 0, or no key")
        return None if rate_hz is None else float(rate_hz)

    def channels(self, shape: tuple[int, ...], key: str) -> tuple[str, ...]:
        """The named channels, one for each of the shape's; the shape's key is blamed otherwise."""
        channels = self.names("channels", 1)
        self.require(
            shape[0] == len(channels), key, f"{len(channels)} channels, as many as are named"
        )
        return channels


def _parse_table(path: Path, table: Mapping[str, Any]) -> DatasetTable:
    checked = _Checked(path, table)
    has_inputs, has_outputs = "inputs" in table, "outputs" in table
    required = ["name", "licence"] + ([] if has_outputs else ["classes"])
    required += ["inputs"] if has_inputs else list(_STREAM_KEYS)
    optional = ["persons", *(["outputs"] if has_outputs else [])]
    checked.only([*required, *optional, *([] if has_inputs else ["rate_hz"])])
    for key in required:
        checked.require(key in table, key, "a value")
    for key in ("name", "licence"):
        checked.require(isinstance(table[key], str) and bool(table[key]), key, "a string")
    classes = () if has_outputs else checked.names("classes", 2)
    outputs = _parse_outputs(path, table["outputs"]) if has_outputs else ()
    if has_inputs:
        inputs, channels = _parse_inputs(path, table["inputs"])
        task = Task(
            name=table["name"],
            modality=inputs[0].modality if len(inputs) == 1 else "mixed",
            classes=classes,
            inputs=inputs,
            outputs=outputs,
        )
        _check_different(path, task)
        rate_hz = inputs[0].rate_hz
    else:
        modalities = get_args(SensorModality)
        checked.require(table["modality"] in modalities, "modality", f"one of {list(modalities)}")
        words = "[channels, length] or [channels, height, width]"
        shape = checked.shape("sample_shape", (2, 3), words)
        channels = {"x": checked.channels(shape, "sample_shape")}
        rate_hz = checked.rate_hz()
        task = Task(
            name=table["name"],
            modality=table["modality"],
            sample_shape=shape,
            classes=classes,
            outputs=outputs,
        )
    persons = table.get("persons", {})
    fits = isinstance(persons, dict) and all(
        DOMAIN_ID.fullmatch(domain_id) and isinstance(person, str) and person
        for domain_id, person in persons.items()
    )
    checked.require(fits, "persons", "a table from domain id to person id")
    return DatasetTable(
        task=task,
        channels=channels.get(task.inputs[0].name, ()),
        rate_hz=rate_hz,
        licence=table["licence"],
        persons=persons,
        stream_channels=channels,
    )


def _parse_inputs(
    path: Path, tables: Any
) -> tuple[tuple[InputSpec, ...], dict[str, tuple[str, ...]]]:
    inputs, channels = [], {}
    for name, checked in _named_tables(path, "inputs", tables):
        checked.only(_INPUT_KEYS)
        table = checked.table
        kinds = get_args(InputKind)
        checked.require(table.get("kind") in kinds, "kind", f"one of {list(kinds)}")
        words, dtypes, modality = _KINDS[table["kind"]]
        shape = checked.shape("shape", (words.count(",") + 1,), words)
        dtype = table.get("dtype", dtypes[0])
        checked.require(dtype in dtypes, "dtype", f"one of {list(dtypes)}")
        if table["kind"] == "image" and dtype == "uint8":
            checked.require(shape[0] in (1, 3, 4), "shape", "1 (grey), 3 (RGB) or 4 channels")
        if "channels" in table:
            channels[name] = checked.channels(shape, "shape")
        known = [*get_args(SensorModality), "text", "vector"]
        modality = table.get("modality", modality)
        checked.require(modality in known, "modality", f"one of {known}")
        inputs.append(
            InputSpec(
                name=name,
                kind=table["kind"],
                shape=shape,
                dtype=dtype,
                rate_hz=checked.rate_hz(),
                modality=modality,
            )
        )
    return tuple(inputs), channels


def _parse_outputs(path: Path, tables: Any) -> tuple[OutputSpec, ...]:
    outputs = []
    for name, checked in _named_tables(path, "outputs", tables):
        checked.only(_OUTPUT_KEYS)
        kind, kinds = checked.table.get("kind"), get_args(OutputKind)
        checked.require(kind in kinds, "kind", f"one of {list(kinds)}")
        classes = checked.names("classes", 2 if kind == "classes" else 1)
        outputs.append(OutputSpec(name=name, kind=checked.table["kind"], classes=classes))
    return tuple(outputs)


def _named_tables(path: Path, key: str, tables: Any) -> list[tuple[str, _Checked]]:
    checked = _Checked(path, tables, f"{key}: ")
    if not checked.table:
        raise DatasetFormatError(f"{path}: {key}: got no table, wanted one or more")
    for name in checked.table:
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise DatasetFormatError(
                f"{path}: {key}: got the name {name!r}, wanted letters, digits and _, 1 to 64, a "
                f"letter first, none of {list(RESERVED)}, no {PATH_SUFFIX} or {RATE_SUFFIX} last"
            )
    return [(n, _Checked(path, each, f"{key}.{n}: ")) for n, each in checked.table.items()]


def _check_different(path: Path, task: Task) -> None:
    both = {spec.name for spec in task.inputs} & {spec.name for spec in task.outputs}
    if both:
        raise DatasetFormatError(
            f"{path}: got {min(both)!r} as input and output, wanted different names"
        )
