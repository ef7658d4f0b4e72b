"""What one task does: the device half of a block of requests, in this process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from graft_server.model_store import open_store

from graft.core.config import ExpansionConfig, WorldConfig
from graft.core.exchange import ProbeRequest, Request, Response, TrainRequest, failure_of
from graft.core.files import AnyPath
from graft.core.records import LedgerEntry
from graft.data.domain import World
from graft.data.worlds import open_world
from graft.rounds import Device, handle_request, handle_together
from graft.wire.messages.codec import decode_request, encode_response
from graft_simulation.block.checkpoints import Block, BlockResult
from graft_simulation.environment import PlugIns
from graft_simulation.shared_networks import SharedNetworks
from graft_simulation.simulated_devices import StoreBackedCache, simulated_factory

_shared = SharedNetworks()


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerContext:
    """What every task of a run needs to know; small, because it travels with each.

    ``models`` is the store's folder, ``accelerator`` the torch device that
    networks compute on.
    ``plug_ins``: methods that are known in the starting process alone.
    """

    config: ExpansionConfig
    run: str
    models: AnyPath
    public_key: bytes
    accelerator: str = "cpu"
    plug_ins: PlugIns | None = None


def run_block(block: Block, context: WorkerContext) -> BlockResult:
    """Handle a block's requests; any error on a device is its named failure.

    It sets torch to one thread, as a worker of its own may; see ``run_inline``.
    """
    torch.set_num_threads(1)
    config = context.config
    if context.plug_ins is not None:
        context.plug_ins.install()
    world = _world(config.world, config.seed)
    store = open_store(context.models, world.task)
    requests = [decode_request(body) for body in block.requests]
    # A model that trains by itself is read by itself, as on a device of its own.
    shares = block.stacked or isinstance(requests[0], ProbeRequest)
    shared = _shared if shares else None
    factory = simulated_factory(
        config, world, context.run, context.public_key, store, shared=shared,
        accelerator=context.accelerator,
    )  # fmt: skip
    entries: list[LedgerEntry] = []
    caches = [StoreBackedCache(names, store) for names in block.cached]
    open_devices = [
        partial(factory.device, request, cache, entries.append)
        for request, cache in zip(requests, caches, strict=True)
    ]
    if block.stacked:
        training = [request for request in requests if isinstance(request, TrainRequest)]
        responses = _respond_stacked(training, open_devices)
    else:
        responses = list(map(_respond, requests, open_devices))
    return BlockResult(
        responses=tuple(map(encode_response, responses)),
        # What a training request fetched is never asked for again.
        cached=tuple(
            tuple(sorted(cache.names)) if isinstance(request, ProbeRequest) else ()
            for request, cache in zip(requests, caches, strict=True)
        ),
        entries=tuple(entries),
    )


def _respond(request: Request, open_device: Callable[[], Device]) -> Response:
    try:
        return handle_request(request, open_device())
    except Exception as error:  # the server gets a named failure, whatever went wrong
        return failure_of(request, error)


def _respond_stacked(
    requests: Sequence[TrainRequest], open_devices: Sequence[Callable[[], Device]]
) -> list[Response]:
    """Responses of devices whose models train as one stack; one that does not open fails alone."""
    responses: dict[int, Response] = {}
    devices: dict[int, Device] = {}
    for number, (request, open_device) in enumerate(zip(requests, open_devices, strict=True)):
        try:
            devices[number] = open_device()
        except Exception as error:
            responses[number] = failure_of(request, error)
    if devices:
        opened = [requests[number] for number in devices]
        trained = handle_together(opened, list(devices.values()))
        responses |= zip(devices, trained, strict=True)
    return [responses[number] for number in range(len(requests))]


@lru_cache(maxsize=4)
def _world(config: WorldConfig, seed: int) -> World:
    """A process handles many blocks of one world, whose folder is listed once."""
    return open_world(config, seed)
