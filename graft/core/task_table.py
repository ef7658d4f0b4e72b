"""A task as a table of plain values, for files of TOML and JSON."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from graft.core.tasks import InputSpec, OutputSpec, Task


def task_to_table(task: Task) -> dict[str, Any]:
    """Modality, shape and classes; streams and outputs where these do not say all."""
    table: dict[str, Any] = {
        "modality": task.modality,
        "classes": list(task.classes),
        "sample_shape": list(task.sample_shape),
    }
    plain = replace(task, inputs=(), outputs=())
    for key in ("inputs", "outputs"):
        if getattr(task, key) != getattr(plain, key):
            rows = [asdict(spec) for spec in getattr(task, key)]
            table[key] = [{k: v for k, v in row.items() if v is not None} for row in rows]
    return table


def task_from_table(name: str, table: Mapping[str, Any]) -> Task:
    """The task of ``task_to_table``; raises KeyError or TypeError for another table."""

    def specs(kind: Any, key: str) -> tuple[Any, ...]:
        rows = table.get(key, ())
        return tuple(
            kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})
            for row in rows
        )

    return Task(
        name=name,
        modality=table["modality"],
        sample_shape=tuple(table["sample_shape"]),
        classes=tuple(table["classes"]),
        inputs=specs(InputSpec, "inputs"),
        outputs=specs(OutputSpec, "outputs"),
    )
