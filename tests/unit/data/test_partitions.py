"""flwr-datasets' own partitioners, over a real Parquet file, become domains."""

import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from flwr_datasets.partitioner import PathologicalPartitioner

from graft.data.check import explain_folder
from graft.data.folder import FolderWorld
from graft.data.importers.flwr_datasets import (
    PartitionColumns,
    convert_partitions,
    open_partitioner,
)
from graft.errors import ConfigError, DatasetFormatError, DomainEmptyError, ExtraMissingError

IMAGES = PartitionColumns(sample="image", label="digit")


def image_rows(count: int = 120) -> datasets.Dataset:
    """Grey images of 4 x 4 whose every pixel is 20 times the digit, by three people."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "digit": datasets.ClassLabel(names=["zero", "one", "two"]),
            "who": datasets.Value("string"),
        }
    )
    digits = [i % 3 for i in range(count)]
    table = {
        "image": [np.full((4, 4), 20 * digit, np.uint8) for digit in digits],
        "digit": digits,
        "who": ["ann" if i < 60 else "bob" if i < 100 else "cid" for i in range(count)],
    }
    return datasets.Dataset.from_dict(table, features=features)


@pytest.fixture
def parquet(tmp_path: Path) -> str:
    path = tmp_path / "digits.parquet"
    image_rows().to_parquet(path)
    return str(path)


def test_a_column_of_people_gives_a_domain_each(parquet: str, tmp_path: Path) -> None:
    partitioner = open_partitioner(parquet, user="who", label="digit")
    done = convert_partitions(partitioner, tmp_path / "out", IMAGES, name="d", licence="CC0")
    world = FolderWorld(tmp_path / "out")
    assert list(world.domain_ids) == ["ann", "bob", "cid"]
    assert (done.rows, world.task.classes) == (120, ("zero", "one", "two"))
    ann = world.load("ann")
    assert ann.x.shape == (60, 1, 4, 4)
    np.testing.assert_allclose(ann.x[:, 0, 0, 0], ann.y_N * 20 / 255, rtol=1e-6)
    assert not [f for f in explain_folder(tmp_path / "out") if f.is_problem]


def test_a_drawn_partition_holds_every_row_once_and_is_the_same_for_a_seed(
    parquet: str, tmp_path: Path
) -> None:
    folders = []
    for number, seed in enumerate((1, 1, 2)):
        partitioner = open_partitioner(parquet, partitions=3, alpha=0.5, label="digit", seed=seed)
        folders.append(tmp_path / str(number))
        done = convert_partitions(partitioner, folders[-1], IMAGES, name="d", licence="CC0")
        assert done.rows == 120
    contents = [
        [path.read_bytes() for path in sorted((folder / "domains").iterdir())] for folder in folders
    ]
    assert contents[0] == contents[1] != contents[2]


def test_even_partitions_and_any_partitioner_of_the_library_do(
    parquet: str, tmp_path: Path
) -> None:
    even = open_partitioner(parquet, partitions=4, label="digit")
    done = convert_partitions(even, tmp_path / "even", IMAGES, name="d", licence="CC0")
    assert done.domains == 4
    own = PathologicalPartitioner(
        num_partitions=3, partition_by="digit", num_classes_per_partition=2,
        class_assignment_mode="deterministic",
    )  # fmt: skip
    own.dataset = image_rows()
    done = convert_partitions(own, tmp_path / "own", IMAGES, name="d", licence="CC0")
    world = FolderWorld(tmp_path / "own")
    assert [len(set(world.load(each).y_N.tolist())) for each in world.domain_ids] == [2, 2, 2]


def test_windows_keep_their_recordings_together(tmp_path: Path) -> None:
    table = {
        "x": [[[float(i + t) for t in range(6)], [0.0] * 6] for i in range(24)],
        "y": ["walk" if (i // 4) % 2 else "rest" for i in range(24)],
        "take": [f"take-{i // 4}" for i in range(24)],
    }
    path = tmp_path / "w.json"
    datasets.Dataset.from_dict(table).to_json(path)
    partitioner = open_partitioner(str(path), partitions=1, label="y")
    columns = PartitionColumns(sample="x", label="y", group="take")
    convert_partitions(
        partitioner, tmp_path / "out", columns, name="w", licence="CC0", modality="imu"
    )
    world = FolderWorld(tmp_path / "out")
    data = world.load("partition-0000")
    assert (data.x.shape, world.task.classes) == ((24, 2, 6), ("rest", "walk"))
    assert data.group_N.tolist() == [i // 4 for i in range(24)]


def test_who_has_one_class_is_left_out_and_none_left_is_an_error(
    parquet: str, tmp_path: Path
) -> None:
    by_digit = open_partitioner(parquet, user="digit", label="digit")
    with pytest.raises(DomainEmptyError, match="0: 40 rows of fewer than two classes"):
        convert_partitions(by_digit, tmp_path / "out", IMAGES, name="d", licence="CC0")
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_named(
    parquet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="wanted one"):
        open_partitioner(parquet, label="digit")
    with pytest.raises(ConfigError, match="wanted one"):
        open_partitioner(parquet, user="who", partitions=3, label="digit")
    with pytest.raises(DatasetFormatError, match=r"nowhere\.parquet"):
        open_partitioner(str(tmp_path / "nowhere.parquet"), partitions=2, label="digit")
    partitioner = open_partitioner(parquet, user="who", label="digit")
    wrong = PartitionColumns(sample="picture", label="digit")
    with pytest.raises(DatasetFormatError, match="wanted 'picture'"):
        convert_partitions(partitioner, tmp_path / "out", wrong, name="d", licence="CC0")
    monkeypatch.setitem(sys.modules, "flwr_datasets.partitioner", None)
    with pytest.raises(ExtraMissingError, match=r"graft-fl\[datasets\]"):
        open_partitioner(parquet, user="who", label="digit")
