"""Rows of several named streams: indexed, joined and read lazily like one tensor."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from graft.core.streams import Lazy, Streams, as_rows, concat, in_batches, row_shape
from graft.core.tasks import InputSpec, Task

BASE = np.arange(20, dtype=np.float32).reshape(10, 2)
MIXED = Task(
    name="t",
    modality="mixed",
    classes=("a", "b"),
    inputs=(
        InputSpec(name="acc", kind="window", shape=(3, 8), modality="imu"),
        InputSpec(name="camera", kind="image", shape=(1, 8, 8), dtype="uint8", modality="image"),
    ),
)


def test_one_stream_is_described_by_the_sample_shape_as_before() -> None:
    task = Task(name="t", modality="imu", sample_shape=(6, 64), classes=("a", "b"))
    assert [(s.name, s.kind, s.shape) for s in task.inputs] == [("x", "window", (6, 64))]
    assert [(o.name, o.kind, o.classes) for o in task.outputs] == [("y", "classes", ("a", "b"))]
    other = replace(task, sample_shape=(3, 8, 8), classes=("c",))
    assert other.inputs[0].shape == (3, 8, 8)
    assert other.outputs[0].classes == ("c",)


def test_a_task_of_fewer_streams() -> None:
    assert MIXED.sample_shape == ()
    assert MIXED.input_names == ("acc", "camera")
    assert MIXED.reading(["acc"]).sample_shape == (3, 8)
    assert MIXED.reading(["acc"]).modality == "imu"
    assert MIXED.reading(()) is MIXED.reading(["camera", "acc"]) is MIXED


def test_rows_are_indexed_joined_and_read_only_then() -> None:
    read: list[int] = []

    def values(rows_N: Any) -> Any:
        read.extend(rows_N.tolist())
        return BASE[rows_N]

    x = Streams({"a": Lazy(values, np.arange(10), (2,), BASE.dtype), "b": BASE})
    parts = [as_rows(x, np.array(rows)) for rows in ([1, 3, 5], [0, 2])]
    joined = concat(parts)
    assert (len(joined), read, row_shape(joined)) == (5, [], (("a", (2,)), ("b", (2,))))
    some = joined[torch.tensor([0, 4, 2])]
    wanted = torch.from_numpy(BASE[[1, 2, 5]])
    assert torch.equal(some["a"], wanted)
    assert torch.equal(some["b"], wanted)
    assert sorted(read) == [1, 2, 5]
    assert [len(batch) for batch in in_batches(joined, 2)] == [2, 2, 1]
    assert len(joined[torch.tensor([], dtype=torch.int64)]["a"]) == 0
    assert torch.equal(joined[torch.tensor([True, False, False, False, True])]["a"], some["a"][:2])


def test_streams_have_one_length() -> None:
    with pytest.raises(ValueError, match="equal"):
        Streams({"a": BASE, "b": BASE[:3]})
