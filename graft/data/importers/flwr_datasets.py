"""flwr-datasets' partitions -> a domain folder: one domain a partition.

Legend: N rows of a partition.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from graft.core.outputs import new_folder
from graft.core.records import FloatArray, IntArray
from graft.core.seeding import derive_seed
from graft.core.tasks import Modality, Task
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData
from graft.data.folder import write_domain
from graft.errors import ConfigError, DatasetFormatError, DomainEmptyError, missing_extra

_LOCAL = {".parquet": "from_parquet", ".csv": "from_csv", ".json": "from_json"}


class Partitioner(Protocol):
    """What graft needs of a flwr-datasets partitioner, whose ``dataset`` is set."""

    dataset: Any

    @property
    def num_partitions(self) -> int: ...

    def load_partition(self, partition_id: int) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionColumns:
    """Which columns mean what: ``sample`` holds a window (channels, length), one channel of it
    (length), or an image; ``label`` a class. Rows of one ``group`` come from one recording."""

    sample: str
    label: str
    group: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionReport:
    """What ``convert_partitions`` wrote and which partitions it left out."""

    folder: Path
    classes: tuple[str, ...]
    domains: int
    rows: int
    left_out: tuple[str, ...]


def convert_partitions(
    partitioner: Partitioner,
    out: Path,
    columns: PartitionColumns,
    *,
    name: str,
    licence: str,
    modality: Modality = "image",
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> PartitionReport:
    """Write the domain folder ``out`` from any partitioner, all or nothing.

    A natural partition is called by its own id, others by their number. Images are brought to
    channels first, and to 0 to 1 where they hold bytes. Partitions of fewer than two classes
    are left out and named. Raises DatasetFormatError for columns or samples that do not fit,
    DomainEmptyError where no partition is left, DataError where ``out`` holds something.
    """
    dataset = partitioner.dataset
    wanted = [each for each in (columns.sample, columns.label, columns.group) if each]
    missing = [column for column in wanted if column not in dataset.column_names]
    if missing:
        raise DatasetFormatError(
            f"{name}: got the columns {dataset.column_names}, wanted {missing[0]!r} among them"
        )
    named = getattr(dataset.features[columns.label], "names", None)
    labels = list(range(len(named))) if named else sorted(dataset.unique(columns.label))
    classes = tuple(named or map(str, labels))
    left_out: list[str] = []
    shape: tuple[int, ...] | None = None
    rows = kept = 0
    with new_folder(out, overwrite=overwrite) as folder:
        for number in range(partitioner.num_partitions):
            domain_id = _domain_id(partitioner, number)
            if progress is not None:
                progress(domain_id, number, partitioner.num_partitions)
            data = _domain(domain_id, partitioner.load_partition(number), columns, labels)
            if len(np.unique(data.y_N)) < 2:
                left_out.append(f"{domain_id}: {len(data.y_N)} rows of fewer than two classes")
                continue
            shape = shape or data.x.shape[1:]
            if data.x.shape[1:] != shape:
                raise DatasetFormatError(
                    f"{domain_id}: got samples of {data.x.shape[1:]}, wanted {shape} as before"
                )
            write_domain(folder, data)
            rows, kept = rows + len(data.y_N), kept + 1
        if shape is None:
            raise DomainEmptyError(
                f"{name}: got no partition with two classes, wanted at least one: "
                + "; ".join(left_out[:3])
            )
        task = Task(name=name, modality=modality, sample_shape=shape, classes=classes)
        channels = [f"channel_{index}" for index in range(shape[0])]
        write_dataset(folder, task, channels=channels, rate_hz=None, licence=licence)
    return PartitionReport(
        folder=out, classes=classes, domains=kept, rows=rows, left_out=tuple(left_out)
    )


def open_partitioner(
    source: str,
    *,
    split: str = "train",
    user: str | None = None,
    partitions: int | None = None,
    label: str,
    alpha: float | None = None,
    seed: int = 0,
) -> Partitioner:
    """A partitioner over a Parquet, CSV or JSON file, or a data set of the Hugging Face hub.

    By the column ``user``; else into ``partitions`` parts, whose class balances are drawn from
    a Dirichlet distribution of ``alpha`` where it is given and are alike where it is not.
    Raises ExtraMissingError without the extra, ConfigError for no or two ways to part,
    DatasetFormatError for a source that cannot be read.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import datasets
        from flwr_datasets.partitioner import (
            DirichletPartitioner,
            IidPartitioner,
            NaturalIdPartitioner,
        )
    except ImportError as error:
        raise missing_extra(str(error.name), "datasets") from error
    if (user is None) == (partitions is None):
        raise ConfigError(f"partitions: got user {user!r} and {partitions} parts, wanted one")
    path = Path(source)
    try:
        if path.suffix in _LOCAL:
            read = getattr(datasets.Dataset, _LOCAL[path.suffix])
            with tempfile.TemporaryDirectory() as cache:
                dataset = read(str(path), cache_dir=cache, keep_in_memory=True)
        else:
            dataset = datasets.load_dataset(source, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DatasetFormatError(
            f"{source}: got {error}, wanted a .parquet, .csv or .json file, or a set of the hub"
        ) from error
    partitioner: Partitioner
    if user is not None:
        partitioner = NaturalIdPartitioner(partition_by=user)
    elif alpha is not None:
        drawn = derive_seed("partitions", seed)
        partitioner = DirichletPartitioner(
            num_partitions=partitions, partition_by=label, alpha=alpha, seed=drawn
        )
    else:
        partitioner = IidPartitioner(num_partitions=partitions)
    partitioner.dataset = dataset
    return partitioner


def _domain_id(partitioner: Partitioner, number: int) -> str:
    natural = getattr(partitioner, "partition_id_to_natural_id", None)
    return str(natural[number]) if natural else f"partition-{number:04d}"


def _domain(
    domain_id: str, part: Any, columns: PartitionColumns, labels: Sequence[Any]
) -> DomainData:
    index_of = {label: index for index, label in enumerate(labels)}
    unknown = [label for label in part[columns.label] if label not in index_of]
    if unknown:
        raise DatasetFormatError(f"{domain_id}: got the label {unknown[0]!r}, wanted {labels[:9]}")
    y_N: IntArray = np.array([index_of[label] for label in part[columns.label]], np.int64)
    group_N: IntArray = np.arange(len(y_N), dtype=np.int64)
    if columns.group:
        group_N = np.unique(np.array(part[columns.group]), return_inverse=True)[1]
    x = _samples(domain_id, list(part[columns.sample]))
    return DomainData(domain_id=domain_id, x=x, y_N=y_N, group_N=group_N)


def _samples(domain_id: str, values: Sequence[Any]) -> FloatArray:
    """The samples as (N, channels, ...) float32."""
    arrays = [np.asarray(value) for value in values]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1 or not arrays or not 1 <= arrays[0].ndim <= 3:
        raise DatasetFormatError(
            f"{domain_id}: got samples of {sorted(shapes)[:3]}, wanted one shape of 1 to 3 axes"
        )
    x = np.stack(arrays)
    is_image = hasattr(values[0], "getbands")
    if is_image and x.dtype == np.uint8:
        x = x / np.float32(255)
    if is_image and x.ndim == 4:
        x = np.moveaxis(x, 3, 1)
    elif is_image or x.ndim == 2:
        x = x[:, None]
    return np.ascontiguousarray(x, np.float32)
