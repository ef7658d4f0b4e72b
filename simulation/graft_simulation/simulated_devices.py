"""Simulated devices: a domain's own side, with the model store a folder away."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from graft_client.device_factory import DeviceFactory

from graft.core.config import ExpansionConfig
from graft.core.exchange import Request
from graft.core.ports import ModelStore
from graft.core.records import LedgerEntry
from graft.data.domain import World
from graft.rounds import Device
from graft.wire.transfer.cache import MemoryCache
from graft.wire.transfer.link import DirectoryLink, Part
from graft_simulation.pooled import pooled_model
from graft_simulation.shared_networks import SharedNetworks

OpenDevice = Callable[[Request], AbstractContextManager[Device]]


def simulated_factory(
    config: ExpansionConfig,
    world: World,
    run: str,
    public_key: bytes,
    store: ModelStore,
    compiled: bool = False,
    shared: SharedNetworks | None = None,
    accelerator: str = "cpu",
) -> DeviceFactory:
    """The factory of a run's simulated devices.

    Their clock is the CPU time of the thread, which other devices on the machine do not lengthen.
    """
    return DeviceFactory(
        config=config,
        world=world,
        run=run,
        public_key=public_key,
        link=DirectoryLink(store),
        clock=time.thread_time,
        simulated=True,
        compiled=compiled,
        accelerator=accelerator,
        pooled=partial(pooled_model, world, config),
        networks=None if shared is None else shared.network,
    )


def devices_in_memory(
    factory: DeviceFactory, store: ModelStore, record: Callable[[LedgerEntry], None]
) -> OpenDevice:
    """Devices of this process: ``record`` gets their transfers, their caches end with it."""
    caches: defaultdict[tuple[str, str], StoreBackedCache] = defaultdict(
        lambda: StoreBackedCache((), store)
    )

    def open_device(request: Request) -> AbstractContextManager[Device]:
        cache = caches[request.domain_id, request.method]
        return nullcontext(factory.device(request, cache, record))

    return open_device


class StoreBackedCache(MemoryCache):
    """``PartCache`` of a simulated device: the ``names`` of the parts that it has received.

    Thousands of devices have the same models, whose bytes stay in the one store.
    """

    def __init__(self, names: Iterable[str], store: ModelStore) -> None:
        self.names = set(names)
        self._store = store

    def holds(self, model_id: str, part: Part) -> bool:
        return f"{model_id}.{part}" in self.names

    def get(self, model_id: str, part: Part) -> bytes | None:
        return self._store.part(model_id, part) if self.holds(model_id, part) else None

    def put(self, model_id: str, part: Part, data: bytes) -> None:
        self.names.add(f"{model_id}.{part}")

    def forget(self, model_id: str) -> None:
        self.names = {name for name in self.names if not name.startswith(model_id)}


class ListedCache(StoreBackedCache):
    """A cache whose names outlive the process, in a file with a line a part."""

    def __init__(self, path: Path, store: ModelStore) -> None:
        super().__init__(path.read_text("utf-8").split("\n") if path.exists() else (), store)
        self._path = path

    def put(self, model_id: str, part: Part, data: bytes) -> None:
        super().put(model_id, part, data)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{model_id}.{part}\n")

    def forget(self, model_id: str) -> None:
        super().forget(model_id)
        if self._path.exists():
            self._path.write_text("".join(f"{name}\n" for name in sorted(self.names)), "utf-8")
