"""Benchmarks that run prepared sets seed by seed: what they share.

Legend: N rows, C classes.
"""

import json
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from scipy.stats import t as student_t
from sklearn.metrics import f1_score
from torch import Tensor

from graft.core.files import replace_file
from graft.core.records import FloatArray
from graft.data.domain import World
from graft.data.folder import FolderWorld

Row = dict[str, Any]


def name_folders(data: list[str]) -> dict[str, Path]:
    """The prepared sets that NAME=FOLDER options name."""
    folders: dict[str, Path] = {}
    for item in data:
        name, equals, folder = item.partition("=")
        if not equals:
            raise typer.BadParameter(f"--data {item}: wanted NAME=FOLDER")
        folders[name] = Path(folder)
    return folders


def measure_seeds(
    folders: Mapping[str, Path],
    seeds: int,
    steps: int,
    work: Path,
    rows_a_seed: int,
    measure: Callable[[World, int, int, Callable[[str], None]], list[Row]],
    console: Console,
) -> dict[str, list[Row]]:
    """Every set's rows of all seeds, with progress; finished ones are read from ``work``."""
    rows: dict[str, list[Row]] = {name: [] for name in folders}
    with Progress(console=console) as progress:
        bar = progress.add_task("", total=len(folders) * seeds * rows_a_seed)

        def advance(text: str) -> None:
            progress.update(bar, advance=1, description=text)

        for done, (name, seed) in enumerate(product(folders, range(seeds)), start=1):
            path = work / f"{name}-seed{seed}-steps{steps}.json"
            if not path.exists():
                found = measure(FolderWorld(folders[name]), seed, steps, advance)
                replace_file(path, json.dumps(found).encode())
            rows[name] += json.loads(path.read_text("utf-8"))
            progress.update(bar, completed=done * rows_a_seed)
    return rows


def score(output_NC: Tensor, y_N: Tensor) -> dict[str, float]:
    """Accuracy and macro-F1 over all classes."""
    predicted_N = output_NC.argmax(1)
    labels = range(output_NC.shape[1])
    return {
        "accuracy": float((predicted_N == y_N).double().mean()),
        "macro_f1": float(
            f1_score(y_N, predicted_N, labels=labels, average="macro", zero_division=0)
        ),
    }


def interval_text(gains: FloatArray, digits: int) -> str:
    """Student's t over seeds, 95 %; nothing to say of fewer than two."""
    if len(gains) < 2:
        return ""
    half = student_t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
    return f"{gains.mean() - half:+.{digits}f} to {gains.mean() + half:+.{digits}f}"
