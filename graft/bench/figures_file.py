"""What every benchmark writes: ``results/summary.json``, a record a figure."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from graft.core.files import replace_file


def machine() -> str:
    """The machine in words: cores, memory and Python, no names."""
    memory_gib = psutil.virtual_memory().total / 2**30
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"Python {platform.python_version()}"
    )


def figure(
    value: float, unit: str, target: str | None, command: str, seeds: Sequence[int]
) -> dict[str, Any]:
    """One figure's record; ``target`` says in words what it should be, None: only reported."""
    return {
        "value": round(value, 4),
        "unit": unit,
        "target": target,
        "command": command,
        "seeds": list(seeds),
        "machine": machine(),
    }


def write_summary(
    folder: Path, figures: Mapping[str, Mapping[str, Any]], *, whole: bool = False
) -> Path:
    """Write ``summary.json``; figures of other names stay, unless these are the ``whole``."""
    path = folder / "summary.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() and not whole else {}
    known.update(figures)
    replace_file(path, (json.dumps(known, indent=2, sort_keys=True) + "\n").encode())
    return path
