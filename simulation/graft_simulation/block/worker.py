"""What one task does: the device half of a block of requests, in this process."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from graft_client.device_factory import make_device
from graft_server.model_store import DirectoryStore, open_store

from graft.core.config import ExpansionConfig, WorldConfig
from graft.core.files import AnyPath
from graft.core.records import (
    LedgerEntry,
    ProbeRequest,
    Request,
    Response,
    TrainRequest,
    failure_of,
)
from graft.data.domain import World
from graft.data.worlds import open_world
from graft.rounds import Device, handle_request, handle_together
from graft.wire.messages.card_signature import verify_card
from graft.wire.messages.codec import decode_request, encode_response
from graft.wire.transfer.link import DirectoryLink
from graft_simulation.block.checkpoints import Block, BlockResult
from graft_simulation.store_backed_cache import StoreBackedCache


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerContext:
    """What every task of a run needs to know; small, for it travels with each.

    ``models`` is the store's folder, ``accelerator`` the torch device that stacks train on.
    """

    config: ExpansionConfig
    run: str
    models: AnyPath
    public_key: bytes
    accelerator: str = "cpu"


def carry_out(block: Block, place: WorkerContext) -> BlockResult:
    """Carry out a block's requests; whatever goes wrong on a device is its named failure."""
    torch.set_num_threads(1)
    world = _world(place.config.world, place.config.seed)
    store = open_store(place.models, world.task)
    entries: list[LedgerEntry] = []
    requests = [decode_request(body) for body in block.requests]
    held = [StoreBackedCache(names, store) for names in block.held]
    bench = _Bench(place, world, store, entries)
    responses = (
        bench.together([o for o in requests if isinstance(o, TrainRequest)], held)
        if block.together
        else [bench.alone(request, parts) for request, parts in zip(requests, held, strict=True)]
    )
    return BlockResult(
        responses=tuple(map(encode_response, responses)),
        # What a learn request fetched is never asked for again.
        held=tuple(
            tuple(sorted(parts.names)) if isinstance(request, ProbeRequest) else ()
            for request, parts in zip(requests, held, strict=True)
        ),
        entries=tuple(entries),
    )


@dataclass(frozen=True, slots=True)
class _Bench:
    """Where this task's devices are made."""

    place: WorkerContext
    world: World
    store: DirectoryStore
    entries: list[LedgerEntry]

    def alone(self, request: Request, held: StoreBackedCache) -> Response:
        try:
            return handle_request(request, self._device(request, held))
        except Exception as error:  # whatever goes wrong on a device has a name at the server
            return failure_of(request, error)

    def together(
        self, requests: Sequence[TrainRequest], held: Sequence[StoreBackedCache]
    ) -> list[Response]:
        responses: dict[int, Response] = {}
        devices: dict[int, Device] = {}
        for number, (request, parts) in enumerate(zip(requests, held, strict=True)):
            try:
                devices[number] = self._device(request, parts)
            except Exception as error:
                responses[number] = failure_of(request, error)
        if devices:
            able = [requests[number] for number in devices]
            soft_targets = handle_together(able, list(devices.values()), self.place.accelerator)
            responses |= zip(devices, soft_targets, strict=True)
        return [responses[number] for number in range(len(requests))]

    def _device(self, request: Request, held: StoreBackedCache) -> Device:
        place = self.place
        return make_device(
            request,
            config=place.config,
            world=self.world,
            run=place.run,
            link=DirectoryLink(self.store),
            cache=held,
            verify=partial(verify_card, place.run, public_key=place.public_key),
            record=self.entries.append,
            clock=time.thread_time,
        )


@lru_cache(maxsize=4)
def _world(config: WorldConfig, seed: int) -> World:
    """A process carries out many blocks of one world, whose folder is listed once."""
    return open_world(config, seed)
