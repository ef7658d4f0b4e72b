"""Laws of the domain folder: what is written comes back, what is wrong is named."""

import io
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft.core.tasks import Task
from graft.data.check import explain_folder
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData, World
from graft.data.folder import FolderWorld, write_domain
from graft.data.unpacking import DOMAIN_LIMITS
from graft.errors import (
    DatasetFormatError,
    DomainClassError,
    DomainEmptyError,
    DomainShapeError,
    DomainValueError,
)

TASK = Task(name="gait", modality="imu", sample_shape=(2, 4), classes=("walk", "run", "rest"))


def make_domain(domain_id: str = "ann", num_rows: int = 6) -> DomainData:
    rng = np.random.default_rng(0)
    return DomainData(
        domain_id=domain_id,
        x=rng.normal(size=(num_rows, 2, 4)).astype(np.float32),
        y_N=np.arange(num_rows, dtype=np.int64) % 3,
        group_N=np.arange(num_rows, dtype=np.int64) // 2,
    )


def write_world(folder: Path, *domains: DomainData, **table: Any) -> Path:
    settings = {"channels": ("x", "y"), "rate_hz": 50.0, "licence": "CC0-1.0", **table}
    write_dataset(folder, TASK, **settings)
    for domain in domains:
        write_domain(folder, domain)
    return folder


def overwrite(folder: Path, **arrays: Any) -> None:
    base = {"x": np.zeros((6, 2, 4), np.float32), "y": np.arange(6) % 3}
    kept = {name: array for name, array in {**base, **arrays}.items() if array is not None}
    np.savez(folder / "domains" / "ann.npz", **kept)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_world(tmp_path, make_domain())


def test_a_written_domain_comes_back_equal(tmp_path: Path) -> None:
    fixed = replace(make_domain("ann@watch"), split_N=np.array([0, 0, 0, 0, 1, 1], np.int8))
    world: World = FolderWorld(
        write_world(tmp_path, fixed, make_domain("bob"), persons={"ann@watch": "ann"})
    )
    back = world.load("ann@watch")
    assert world.task == TASK
    assert list(world.domain_ids) == ["ann@watch", "bob"]
    assert (world.person("ann@watch"), world.person("bob")) == ("ann", "bob")
    np.testing.assert_array_equal(back.x, fixed.x)
    np.testing.assert_array_equal(back.y_N, fixed.y_N)
    np.testing.assert_array_equal(back.group_N, fixed.group_N)
    assert back.split_N is not None
    np.testing.assert_array_equal(back.split_N, [0, 0, 0, 0, 1, 1])
    assert (back.x.dtype, back.y_N.dtype, back.group_N.dtype) == (np.float32, np.int64, np.int64)


def test_the_same_data_gives_the_same_bytes(tmp_path: Path) -> None:
    persons = {"b": "p", "a": "p"}
    first = write_world(tmp_path / "1", make_domain(), persons=persons)
    second = write_world(tmp_path / "2", make_domain(), persons=dict(reversed(persons.items())))
    for name in ("dataset.toml", "domains/ann.npz"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_writing_leaves_no_partial_file(folder: Path) -> None:
    write_domain(folder, make_domain())
    assert [path.name for path in (folder / "domains").iterdir()] == ["ann.npz"]


def test_rows_without_groups_are_each_their_own_group(folder: Path) -> None:
    overwrite(folder)
    assert FolderWorld(folder).load("ann").group_N.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u1", "i8"])
def test_numbers_that_convert_safely_become_float32(folder: Path, dtype: str) -> None:
    overwrite(folder, x=np.full((6, 2, 4), 3, dtype))
    x = FolderWorld(folder).load("ann").x
    assert x.dtype == np.float32
    assert (x == 3).all()


NAN = np.zeros((6, 2, 4))
NAN[4, 1, 2] = np.nan


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ({"x": np.zeros((0, 2, 4)), "y": np.zeros(0, int)}, DomainEmptyError, "0 rows"),
        ({"y": np.ones(6, int)}, DomainClassError, "got 1 class"),
        ({"y": np.array([0, 1, 2, 3, 0, 1])}, DomainClassError, "row 3: got label 3"),
        ({"y": np.array([0, -1, 2, 2, 0, 1])}, DomainClassError, "row 1: got label -1"),
        ({"y": np.arange(6) / 2}, DomainShapeError, "y: got float64"),
        ({"x": NAN}, DomainValueError, "row 4"),
        ({"x": np.full((6, 2, 4), 1e300)}, DomainValueError, "row 0"),
        ({"x": np.full((6, 2, 4), 2**24 + 1)}, DomainValueError, "16777216"),
        ({"x": np.zeros((6, 3, 4))}, DomainShapeError, r"\(3, 4\), wanted \(2, 4\)"),
        ({"x": np.zeros((6, 2, 5))}, DomainShapeError, r"\(2, 5\), wanted \(2, 4\)"),
        ({"x": np.zeros((6, 2, 4), complex)}, DomainShapeError, "complex128"),
        ({"x": np.full((6, 2, 4), "a")}, DomainShapeError, "<U1"),
        ({"y": np.arange(5) % 3}, DatasetFormatError, "lengths"),
        ({"y": np.array(1)}, DatasetFormatError, "lengths"),
        ({"group": np.zeros((6, 2), int)}, DomainShapeError, "group"),
        ({"split": np.array([0, 0, 0, 1, 1, 2])}, DatasetFormatError, "row 5: got 2"),
        ({"y": None}, DatasetFormatError, "wanted 'y'"),
        ({"groups": np.zeros(6)}, DatasetFormatError, "unknown array 'groups'"),
        ({"y": np.array([0, 1, 2, 0, 1, None], object)}, DatasetFormatError, "plain arrays"),
    ],
)
def test_a_domain_that_cannot_be_used_is_named_with_the_reason(
    folder: Path, arrays: dict[str, Any], error: type[Exception], words: str
) -> None:
    overwrite(folder, **arrays)
    with pytest.raises(error, match=words) as caught:
        FolderWorld(folder).load("ann")
    assert "ann.npz" in str(caught.value)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle ran",))


def truncated_archive() -> bytes:
    packed = io.BytesIO()
    np.savez(packed, x=np.zeros((6, 2, 4)), y=np.arange(6) % 3)
    return packed.getvalue()[:-40]


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", pickle.dumps(Bomb()), b"PK\x03\x04rest", truncated_archive()]
)
def test_a_file_that_is_no_npz_is_refused_without_running_it(folder: Path, content: bytes) -> None:
    (folder / "domains" / "ann.npz").write_bytes(content)
    with pytest.raises(DatasetFormatError, match="npz archive"):
        FolderWorld(folder).load("ann")


def test_an_archive_that_unpacks_to_much_more_than_it_is_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_domain(folder, replace(make_domain(), x=np.zeros((6, 2, 4), np.float32)))
    FolderWorld(folder).load("ann")
    small = replace(DOMAIN_LIMITS, free_bytes=256, ratio=2)
    many = replace(make_domain(), x=np.zeros((6_000, 2, 4)), y_N=np.arange(6_000) % 3,
                   group_N=np.arange(6_000) * 0)  # fmt: skip
    monkeypatch.setattr("graft.data.folder.DOMAIN_LIMITS", small)
    write_domain(folder, many)
    with pytest.raises(DatasetFormatError, match="bytes unpacked"):
        FolderWorld(folder).load("ann")


def test_a_shape_that_its_bytes_do_not_fill_is_refused_before_memory_is_taken(folder: Path) -> None:
    path, header = folder / "domains" / "ann.npz", io.BytesIO()
    shape = (1 << 40, 2, 4)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x", "y"):
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(64))
    with pytest.raises(DatasetFormatError, match="got 64 bytes of an array"):
        FolderWorld(folder).load("ann")


def test_a_single_array_is_no_archive(folder: Path) -> None:
    with (folder / "domains" / "ann.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DatasetFormatError, match="single array"):
        FolderWorld(folder).load("ann")


def test_a_missing_file_is_named(folder: Path, tmp_path: Path) -> None:
    world = FolderWorld(folder)
    with pytest.raises(DatasetFormatError, match=r"bob\.npz"):
        world.load("bob")
    with pytest.raises(DatasetFormatError, match=r"dataset\.toml"):
        FolderWorld(tmp_path / "nowhere")


@pytest.mark.parametrize("domain_id", ["", "../ann", "a b", "a/b", "ann\n", "ä", ".", "..", "-rf"])
def test_an_id_that_is_no_file_name_is_refused(folder: Path, domain_id: str) -> None:
    with pytest.raises(DatasetFormatError, match="domain id"):
        FolderWorld(folder).load(domain_id)
    with pytest.raises(DatasetFormatError, match="domain id"):
        write_domain(folder, make_domain(domain_id))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('sensor = "wrist"', "unknown key 'sensor'"),
        ('[persons]\nzoe = "z"', "'zoe'"),
        ("[persons]\nann = 3", "persons"),
    ],
)
def test_a_line_too_many_in_the_table_is_named(folder: Path, line: str, words: str) -> None:
    with (folder / "dataset.toml").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DatasetFormatError, match=words):
        FolderWorld(folder)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('modality = "imu"', 'modality = "smell"', "modality: got 'smell'"),
        ('modality = "imu"', "", "modality: got None"),
        ("rate_hz = 50.0", "rate_hz = 0", "rate_hz"),
        ("rate_hz = 50.0", "rate_hz = nan", "rate_hz"),
        ('"run"', '"walk"', "classes"),
        ('    "y",', "", "sample_shape"),
        ("    4,", "", "sample_shape"),
        ("name", "=", "TOML"),
    ],
)
def test_a_wrong_value_in_the_table_is_named(folder: Path, old: str, new: str, words: str) -> None:
    path = folder / "dataset.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DatasetFormatError, match=words):
        FolderWorld(folder)


def test_a_folder_without_domains_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match=r"no \.npz file"):
        FolderWorld(write_world(tmp_path))


def problems(folder: Path) -> list[tuple[str, str]]:
    return [(each.domain_id, each.error) for each in explain_folder(folder) if each.is_problem]


def test_a_check_lists_every_problem_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    assert problems(folder) == []
    write_domain(folder, make_domain("bob"))
    overwrite(folder, x=NAN)
    assert problems(folder) == [("ann", "DomainValueError")]
    assert problems(tmp_path / "nowhere") == [("", "DatasetFormatError")]
