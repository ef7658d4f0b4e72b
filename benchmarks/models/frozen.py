"""Domains of a frozen backbone's features: each sample's are computed once and kept in a file.

Legend: N rows, F features.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from graft.core.config import SplitConfig
from graft.core.outputs import new_folder
from graft.core.records import FloatArray, IntArray
from graft.core.tasks import Task
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData
from graft.data.folder import write_domain
from graft.data.splits import split_rows

# A profile's statistics are those of channels: so many features are one.
PIECE = 32


class FeatureCache:
    """Features by the sample's bytes, kept in one ``.npz``; ``passes`` counts what was computed."""

    def __init__(self, path: Path, features_of: Callable[[Any], FloatArray]) -> None:
        self._path, self._features_of = path, features_of
        self._rows: dict[str, FloatArray] = {}
        self.passes = 0
        if path.exists():
            with np.load(path) as kept:
                self._rows = dict(zip(kept["digest"].tolist(), kept["features"], strict=True))

    def features(self, x: Sequence[Any]) -> FloatArray:
        """The features (N, F) of samples, those that are new computed and kept."""
        digests = [hashlib.sha256(np.asarray(sample).tobytes()).hexdigest() for sample in x]
        new = {d: row for row, d in enumerate(digests) if d not in self._rows}
        if new:
            found = self._features_of(x[list(new.values())])
            self.passes += len(new)
            self._rows.update(zip(new, found, strict=True))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.with_suffix(".partial").open("wb") as file:
                np.savez(file, digest=list(self._rows), features=np.stack([*self._rows.values()]))
            self._path.with_suffix(".partial").replace(self._path)
        return np.stack([self._rows[digest] for digest in digests])


def first_rows(data: DomainData, train: int, test: int) -> DomainData:
    """The first train and the first test rows of a domain whose authors fixed its split."""
    rows_N = np.concatenate([np.flatnonzero(data.split_N == side)[:most]
                             for side, most in ((0, train), (1, test))])  # fmt: skip
    return chosen_rows(data, rows_N)


def chosen_rows(data: DomainData, rows_N: IntArray) -> DomainData:
    """Some rows of a domain."""
    split_N = None if data.split_N is None else data.split_N[rows_N]
    return replace(data, x=data.x[rows_N], y_N=data.y_N[rows_N], group_N=data.group_N[rows_N],
                   split_N=split_N)  # fmt: skip


def write_vectors(
    out: Path,
    domains: Iterable[DomainData],
    task: Task,
    features_of: Callable[[Any], FloatArray],
    *,
    development: bool = False,
) -> None:
    """The domains' features as a domain folder of windows (F / 32, 32), persons before the "@".

    ``development`` leaves out every row that the split tests on, so that settings can be chosen
    without a look at them.
    """
    persons = {}
    with new_folder(out, overwrite=True) as folder:
        for data in domains:
            if development:
                data = chosen_rows(data, split_rows(data, SplitConfig(), seed=0).train_N)
            features_NF = features_of(data.x)
            write_domain(
                folder,
                replace(data, x=features_NF.reshape(len(features_NF), -1, PIECE)),
                compressed=False,
            )
            persons[data.domain_id] = data.domain_id.partition("@")[0]
        size = features_NF.shape[1]
        vectors = Task(name=task.name, modality="sequence", sample_shape=(size // PIECE, PIECE),
                       classes=task.classes)  # fmt: skip
        channels = [f"feature_{index}" for index in range(size // PIECE)]
        write_dataset(folder, vectors, channels=channels, rate_hz=None, licence="as the originals",
                      persons={d: p for d, p in persons.items() if d != p})  # fmt: skip
