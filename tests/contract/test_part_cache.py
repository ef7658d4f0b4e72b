"""What every memory of fetched parts does: in process, in a folder, and by name only."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cache_parts import get_part, put_part
from fakes import MemoryStore
from graft_simulation.simulated_devices import ListedCache, StoreBackedCache

from graft.core.payload import encode_payload
from graft.core.tasks import Task
from graft.models import build_network, parameter_shapes, parameters_of
from graft.wire.transfer.cache import FolderCache, MemoryCache, PartCache
from graft.wire.transfer.link import Part

TASK = Task(name="t", modality="imu", sample_shape=(2, 16), classes=("a", "b"))
PARTS: tuple[Part, ...] = ("base", "residual", "exact")
OpenCache = Callable[[], PartCache]


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return MemoryStore(lambda architecture: parameter_shapes(architecture, TASK))


@pytest.fixture(scope="module")
def models(store: MemoryStore) -> list[str]:
    """Ids of two models that the store holds."""
    return [
        store.put(encode_payload("mlp", parameters_of(build_network("mlp", TASK, seed))), "mlp")
        for seed in (0, 1)
    ]


@pytest.fixture(params=["memory", "folder", "quota", "listed", "named"])
def open_cache(request: pytest.FixtureRequest, tmp_path: Path, store: MemoryStore) -> OpenCache:
    """Opens a device's cache; what outlives its process is there when it is opened again."""
    if request.param == "memory":
        held = MemoryCache()
        return lambda: held
    if request.param == "folder":
        return lambda: FolderCache(tmp_path / "device")
    if request.param == "quota":
        return lambda: FolderCache(tmp_path / "device", quota_bytes=10_000_000)
    if request.param == "listed":
        return lambda: ListedCache(tmp_path / "devices" / "ann.held", store)
    named = StoreBackedCache((), store)
    return lambda: named


def fill(cache: PartCache, store: MemoryStore, *kept: tuple[str, Part]) -> None:
    for name, part in kept:
        put_part(cache, name, part, store.part(name, part))


def test_a_new_cache_holds_nothing(open_cache: OpenCache, models: list[str]) -> None:
    assert [get_part(open_cache(), models[0], part) for part in PARTS] == [None] * 3


def test_a_part_comes_back_as_it_was_put_and_no_other_does(
    open_cache: OpenCache, store: MemoryStore, models: list[str]
) -> None:
    cache = open_cache()
    fill(cache, store, (models[0], "base"), (models[1], "exact"))
    assert get_part(cache, models[0], "base") == store.part(models[0], "base")
    assert get_part(cache, models[1], "exact") == store.part(models[1], "exact")
    assert get_part(cache, models[0], "residual") is None
    assert get_part(cache, models[0], "exact") is None
    assert get_part(cache, models[1], "base") is None


def test_putting_twice_is_putting_once(
    open_cache: OpenCache, store: MemoryStore, models: list[str]
) -> None:
    cache = open_cache()
    fill(cache, store, (models[0], "base"), (models[0], "base"))
    assert get_part(cache, models[0], "base") == store.part(models[0], "base")
    cache.forget(models[0])
    assert get_part(cache, models[0], "base") is None


def test_a_cache_opened_again_holds_what_it_held(
    open_cache: OpenCache, store: MemoryStore, models: list[str]
) -> None:
    fill(open_cache(), store, (models[0], "base"))
    fill(open_cache(), store, (models[1], "residual"))
    again = open_cache()
    assert get_part(again, models[0], "base") == store.part(models[0], "base")
    assert get_part(again, models[1], "residual") == store.part(models[1], "residual")


def test_forgetting_a_model_forgets_all_its_parts_for_good_and_no_other_model(
    open_cache: OpenCache, store: MemoryStore, models: list[str]
) -> None:
    cache = open_cache()
    fill(cache, store, *((name, part) for name in models for part in PARTS))
    cache.forget(models[0])
    for held in (cache, open_cache()):
        assert [get_part(held, models[0], part) for part in PARTS] == [None] * 3
        assert all(get_part(held, models[1], part) is not None for part in PARTS)


def test_a_forgotten_part_can_be_put_again(
    open_cache: OpenCache, store: MemoryStore, models: list[str]
) -> None:
    cache = open_cache()
    fill(cache, store, (models[0], "base"))
    cache.forget(models[0])
    fill(cache, store, (models[0], "base"))
    assert get_part(open_cache(), models[0], "base") == store.part(models[0], "base")


def test_forgetting_what_was_never_held_is_nothing(
    open_cache: OpenCache, models: list[str]
) -> None:
    open_cache().forget(models[0])
    assert get_part(open_cache(), models[0], "base") is None


def test_what_is_cached_can_be_told_without_reading_it(
    open_cache: OpenCache, store: MemoryStore, models: list[str]
) -> None:
    cache = open_cache()
    fill(cache, store, (models[0], "base"))
    assert [cache.holds(models[0], part) for part in PARTS] == [True, False, False]


def test_a_download_that_was_not_kept_is_not_cached(
    open_cache: OpenCache, store: MemoryStore, models: list[str]
) -> None:
    cache = open_cache()
    partial = cache.start_download(models[0], "base", store.num_bytes(models[0], "base"))
    partial.append(store.part(models[0], "base")[:10])
    partial.close()
    assert not cache.holds(models[0], "base")
    assert get_part(open_cache(), models[0], "base") is None


def test_a_finished_push_leaves_no_note(open_cache: OpenCache, models: list[str]) -> None:
    cache = open_cache()
    assert cache.sent_bytes(models[0]) is None
    cache.note_sent(models[0], 700)
    assert cache.sent_bytes(models[0]) in (700, None)  # None: it ends with its process
    cache.note_sent(models[0], None)
    assert open_cache().sent_bytes(models[0]) is None
