"""What every model store does."""

import hashlib
import multiprocessing
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from fakes import MemoryStore
from graft_server.model_store import DirectoryStore

from graft.core.payload import encode_payload, model_id
from graft.core.ports import ModelStore
from graft.errors import ArchitectureError, ModelMissingError, PayloadError, TransportError
from graft.wire.payload.parts import join_parts

SHAPES = {"w": (4, 3), "b": (4,)}


def shapes_of(architecture: str) -> Mapping[str, tuple[int, ...]]:
    if architecture != "net":
        raise ArchitectureError(f"{architecture} is unknown")
    return SHAPES


def payload_of(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return encode_payload("net", tensors)


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ModelStore:
    if request.param == "memory":
        return MemoryStore(shapes_of)
    return DirectoryStore(tmp_path / "store", shapes_of=shapes_of)


def test_a_payload_is_kept_under_its_own_hash(store: ModelStore) -> None:
    payload = payload_of(0)
    name = store.put(payload, "net")
    assert name == hashlib.sha256(payload).hexdigest()
    assert name in store
    assert store.part(name, "exact") == payload


def test_the_parts_join_to_the_payload(store: ModelStore) -> None:
    payload = payload_of(1)
    name = store.put(payload, "net")
    assert join_parts(store.part(name, "base"), store.part(name, "residual")) == payload


def test_a_part_is_as_long_as_its_length_says(store: ModelStore) -> None:
    name = store.put(payload_of(1), "net")
    for part in ("base", "residual", "exact"):
        assert store.num_bytes(name, part) == len(store.part(name, part))


def test_putting_twice_is_putting_once(store: ModelStore) -> None:
    assert store.put(payload_of(2), "net") == store.put(payload_of(2), "net")


@pytest.mark.parametrize("name", ["0" * 64, "", "../../etc/passwd", "0" * 63 + "/"])
def test_a_model_it_does_not_hold_is_missing(store: ModelStore, name: str) -> None:
    assert name not in store
    with pytest.raises(ModelMissingError):
        store.part(name, "exact")
    with pytest.raises(ModelMissingError):
        store.num_bytes(name, "exact")


def test_a_part_that_does_not_exist_is_refused(store: ModelStore) -> None:
    with pytest.raises(TransportError):
        store.part(store.put(payload_of(3), "net"), "half")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p[:-1],
        lambda p: p + b"\0",
        lambda p: p[:-4] + np.float32(np.nan).tobytes(),
        lambda p: encode_payload("net", {"w": np.zeros((4, 4), np.float32)}),
        lambda p: b"",
    ],
)
def test_a_payload_out_of_form_leaves_nothing_behind(
    store: ModelStore, spoil: Callable[[bytes], bytes]
) -> None:
    spoiled = spoil(payload_of(4))
    with pytest.raises(PayloadError):
        store.put(spoiled, "net")
    assert hashlib.sha256(spoiled).hexdigest() not in store


def test_an_unknown_architecture_is_refused(store: ModelStore) -> None:
    with pytest.raises(ArchitectureError):
        store.put(payload_of(5), "stranger")


def test_a_directory_store_outlives_its_process_and_lost_parts(tmp_path: Path) -> None:
    name = DirectoryStore(tmp_path, shapes_of=shapes_of, durable=True).put(payload_of(6), "net")
    for suffix in (".base", ".residual"):
        (tmp_path / (name + suffix)).unlink()
    again = DirectoryStore(tmp_path, shapes_of=shapes_of)
    assert join_parts(again.part(name, "base"), again.part(name, "residual")) == payload_of(6)


def _put_many(folder: Path) -> None:
    store = DirectoryStore(folder, shapes_of=shapes_of)
    for seed in range(20):
        store.put(payload_of(seed), "net")


def test_concurrent_writers_agree_and_leave_no_partial_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_put_many, args=(tmp_path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=20)
        assert writer.exitcode == 0
    store = DirectoryStore(tmp_path, shapes_of=shapes_of)
    for seed in range(20):
        assert store.part(model_id(payload_of(seed)), "exact") == payload_of(seed)
    assert len(list(tmp_path.iterdir())) == 3 * 20
