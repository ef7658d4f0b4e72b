"""Domain folders of several streams, pictures, text and other outputs than classes."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from graft.core.streams import Lazy, Streams
from graft.core.tasks import InputSpec, OutputSpec, Task
from graft.data.dataset_table import read_dataset, write_dataset
from graft.data.domain import DomainData, inputs_of
from graft.data.folder import FolderWorld, write_domain, write_rows, write_world
from graft.data.stream_columns import text_bytes, texts_of
from graft.errors import (
    ConfigError,
    DatasetFormatError,
    DomainClassError,
    DomainShapeError,
    DomainValueError,
)

ACC = InputSpec(name="acc", kind="window", shape=(3, 8), rate_hz=50.0, modality="imu")
CAMERA = InputSpec(name="camera", kind="image", shape=(3, 4, 6), dtype="uint8", modality="image")
NOTE = InputSpec(name="note", kind="tokens", shape=(16,), dtype="uint8", modality="text")
SIZE = InputSpec(name="size", kind="vector", shape=(2,), modality="vector")
ACTIVITY = OutputSpec(name="activity", kind="classes", classes=("sit", "walk"))
TAGS = OutputSpec(name="tags", kind="labels", classes=("wet", "cold", "dark"))
SPEED = OutputSpec(name="speed", kind="amount", classes=("m_per_s",))
TASK = Task(
    name="site", modality="mixed", inputs=(ACC, CAMERA, NOTE, SIZE), outputs=(ACTIVITY, TAGS, SPEED)
)
TEXTS = ["still", "grüße", "", "a longer text than fits", "x", "y"]


def picture(shade: int, size: tuple[int, int] = (6, 4)) -> bytes:
    packed = io.BytesIO()
    Image.new("RGB", size, (shade, 2 * shade, 0)).save(packed, "PNG")
    return packed.getvalue()


def rows(num_rows: int = 6) -> dict[str, Any]:
    return {
        "acc": np.arange(num_rows * 24, dtype=np.float32).reshape(num_rows, 3, 8),
        "camera": [picture(10 * row) for row in range(num_rows)],
        "note": TEXTS[:num_rows],
        "size": np.ones((num_rows, 2), np.float32),
        "activity": np.arange(num_rows) % 2,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path, TASK, channels={"acc": ("x", "y", "z")}, licence="CC0")
    write_rows(tmp_path, "ann", rows())
    return tmp_path


def test_the_table_comes_back_as_it_was_written(folder: Path) -> None:
    table = read_dataset(folder)
    assert table.task == TASK
    assert (table.rate_hz, table.stream_channels) == (50.0, {"acc": ("x", "y", "z")})


def test_streams_keep_their_kinds_and_dtypes(folder: Path) -> None:
    data = FolderWorld(folder).load("ann")
    assert isinstance(data.x, Streams)
    assert data.inputs == data.x.names == ("acc", "camera", "note", "size")
    assert [data.x[name].dtype for name in data.inputs] == ["f4", "u1", "u1", "f4"]
    np.testing.assert_array_equal(data.x["acc"], rows()["acc"])
    assert data.x["camera"][2, :, 0, 0].tolist() == [20, 40, 0]
    assert texts_of(data.x["note"])[:4] == ["still", "grüße", "", "a longer text th"]
    assert data.y_N.tolist() == [0, 1, 0, 1, 0, 1]


def test_a_domain_may_lack_streams_and_states_which_it_has(folder: Path) -> None:
    few = {name: column for name, column in rows().items() if name in ("acc", "activity")}
    write_rows(folder, "bob", few)
    world = FolderWorld(folder)
    data = world.load("bob")
    assert world.inputs("bob") == inputs_of(world, "bob") == data.inputs == ("acc",)
    assert world.inputs("ann") == TASK.input_names
    np.testing.assert_array_equal(data.x, few["acc"])  # one stream is a plain array


def test_files_beside_shards_of_unlike_formats_are_one_domain(folder: Path) -> None:
    own = folder / "domains" / "zoe"
    (own / "img").mkdir(parents=True)
    lines = [{"camera_path": f"img/{n}.png", "note": f"n{n}", "activity": "walk"} for n in (0, 1)]
    (own / "1.jsonl").write_text("\n".join(map(json.dumps, lines)))
    table = {"camera_path": ["img/2.png"], "note": ["n2"], "activity": ["sit"]}
    pq.write_table(pa.table(table), own / "2.parquet")
    for number in range(3):
        (own / "img" / f"{number}.png").write_bytes(picture(number, size=(60, 40)))
    data = FolderWorld(folder).load("zoe")
    assert data.inputs == ("camera", "note")
    assert data.x["camera"].shape == (3, 3, 4, 6)
    assert data.x["camera"][:, 0, 2, 3].tolist() == [0, 1, 2]
    assert texts_of(data.x["note"]) == ["n0", "n1", "n2"]
    assert data.y_N.tolist() == [1, 1, 0]


def test_large_domains_are_read_when_they_are_indexed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("columns", "stream_columns"):
        monkeypatch.setattr(f"graft.data.{module}.EAGER_BYTES", 64)
    data = FolderWorld(folder).load("ann")
    assert isinstance(data.x["camera"], Lazy)
    assert data.x["camera"][[2]][0, :, 0, 0].tolist() == [20, 40, 0]
    plain = replace(data, domain_id="cat", x=data.x["acc"][:] - 1, inputs=("acc",))
    write_domain(folder, plain, compressed=False, task=TASK)
    mapped = FolderWorld(folder).load("cat").x
    assert isinstance(mapped, Lazy)
    np.testing.assert_array_equal(mapped[np.array([5, 0])], rows()["acc"][[5, 0]] - 1)


def test_other_outputs_are_chosen_by_name(folder: Path) -> None:
    tags = [["wet"], [], ["wet", "dark"], [], ["cold"], []]
    columns = {**rows(), "tags": tags, "speed": np.arange(6) / 2}
    write_rows(folder, "ann", columns)
    labels = FolderWorld(folder, "tags").load("ann").y_N
    assert labels.dtype == np.float32
    assert labels.tolist()[:3] == [[1, 0, 0], [0, 0, 0], [1, 0, 1]]
    assert FolderWorld(folder, "tags").task.classes == TAGS.classes
    assert FolderWorld(folder, "speed").load("ann").y_N[:, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    with pytest.raises(ConfigError, match="output: got 'mood', wanted one of"):
        FolderWorld(folder, "mood")
    write_rows(folder, "ann", {**columns, "tags": [["hot"]] * 6})
    with pytest.raises(DomainClassError, match="'hot', wanted one of"):
        FolderWorld(folder, "tags").load("ann")


def test_a_world_of_streams_is_written_and_read_again(folder: Path, tmp_path: Path) -> None:
    write_rows(folder, "bob", {name: rows()[name] for name in ("note", "activity")})
    first = FolderWorld(folder)
    write_world(tmp_path / "copy", first)
    second = FolderWorld(tmp_path / "copy")
    assert second.task == first.task
    for domain_id in ("ann", "bob"):
        ours, back = first.load(domain_id), second.load(domain_id)
        assert back.inputs == ours.inputs
        columns = dict(ours.x.items()) if isinstance(ours.x, Streams) else {"note": ours.x}
        for name, column in columns.items():
            got = back.x[name] if isinstance(back.x, Streams) else back.x
            np.testing.assert_array_equal(got, column)
            assert got.dtype == column.dtype


def change(name: str, column: Any) -> Callable[[Path], None]:
    return lambda folder: write_rows(folder, "ann", {**rows(), name: column})


def with_rate(folder: Path) -> None:
    write_rows(folder, "ann", rows(), rates_hz={"acc": 25.0})


def with_lines(*lines: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "domains" / "ann.parquet").unlink()
        (folder / "domains" / "ann.jsonl").write_bytes(b"\n".join(lines))

    return write


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (with_rate, DomainShapeError, "acc: got 25 Hz, wanted 50"),
        (change("camera", [b"GIF89a"] * 6), DomainValueError, "camera: row 0: got .* decodes"),
        (change("note", [b"ok"] * 5 + [b"\xff\xfe"]), DomainValueError, "note: row 5: .*UTF-8"),
        (change("acc", [[1.0] * 24] * 5 + [[1.0]]), DomainShapeError, "acc: .*unlike lengths"),
        (change("acc", np.zeros((6, 3, 9), "f4")), DomainShapeError, r"\(27,\), wanted \(3, 8\)"),
        (change("size", np.full((6, 2), np.nan)), DomainValueError, "size: row 0: got NaN"),
        (change("note", [1, 2, 3, 4, 5, 6]), DomainShapeError, "note: got rows of shape"),
        (change("gyro", np.zeros((6, 3))), DatasetFormatError, "unknown column 'gyro'"),
        (with_lines(b'{"note": "a\xff", "activity": 0}'), DomainValueError, "line 1: .*UTF-8"),
        (with_lines(b'{"note": "a", "activity": 0}', b"[]"), DatasetFormatError, "line 2: got"),
        (with_lines(b'{"note_path": "../dataset.toml", "activity": 0}',
                    b'{"note_path": "/etc/hostname", "activity": 1}'),
         DomainValueError, "row 1: got '/etc/hostname', wanted the path of a file below"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_in_one_line(
    folder: Path, spoil: Callable[[Path], None], error: type[Exception], words: str
) -> None:
    spoil(folder)
    with pytest.raises(error, match=words) as caught:
        FolderWorld(folder).load("ann")
    assert "ann" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_of_unlike_lengths_are_refused(folder: Path) -> None:
    with pytest.raises(DatasetFormatError, match="'note': 4"):
        write_rows(folder, "bob", {**rows(), "note": TEXTS[:4]})
    acc = rows()["acc"]
    np.savez(folder / "domains" / "bob.npz", acc=acc, size=np.ones((4, 2)), y=np.arange(6) % 2)
    with pytest.raises(DatasetFormatError, match="'size': 4"):
        FolderWorld(folder).load("bob")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('kind = "smell"', "inputs.z: kind: got 'smell'"),
        ('kind = "window"\nshape = [3]', r"wanted \[channels, length\]"),
        ('kind = "image"\nshape = [2, 4, 4]', "1 \\(grey\\), 3"),
        ('kind = "vector"\nshape = [2]\ndtype = "int8"', "dtype"),
        ('kind = "vector"\nshape = [2]\nunit = "g"', "unknown key 'unit'"),
    ],
)
def test_a_stream_that_the_table_describes_wrongly_is_named(
    folder: Path, line: str, words: str
) -> None:
    with (folder / "dataset.toml").open("a") as file:
        file.write(f"[inputs.z]\n{line}\n")
    with pytest.raises(DatasetFormatError, match=words):
        FolderWorld(folder)


def test_text_is_cut_between_characters() -> None:
    assert texts_of(text_bytes("t", ["aaaü"], 4)) == ["aaa"]


def test_a_second_file_of_a_domain_is_refused(folder: Path) -> None:
    (folder / "domains" / "ann.jsonl").write_text("{}")
    with pytest.raises(DatasetFormatError, match="second file of one domain"):
        FolderWorld(folder)


def test_data_of_a_single_named_stream(tmp_path: Path) -> None:
    task = Task(name="notes", modality="text", inputs=(NOTE,), classes=("good", "bad"))
    write_dataset(tmp_path, task, licence="CC0")
    y_N = np.arange(6) % 2
    data = DomainData(domain_id="ann", x=text_bytes("", TEXTS, 16), y_N=y_N, group_N=np.arange(6))
    write_domain(tmp_path, data, task=task)
    back = FolderWorld(tmp_path)
    assert back.task == task
    np.testing.assert_array_equal(back.load("ann").x, data.x)
