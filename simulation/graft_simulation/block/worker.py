"""What one task does: the device half of a block of orders, in this process."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from graft_client.device_factory import make_device
from graft_server.model_store import DirectoryStore, open_store

from graft.core.config import ExpansionConfig, WorldConfig
from graft.core.files import AnyPath
from graft.core.records import Answer, LearnOrder, LedgerEntry, Order, ProbeOrder, failure_of
from graft.data.domain import World
from graft.data.worlds import open_world
from graft.rounds import Device, answer_order, answer_together
from graft.wire.messages.card_signature import verify_card
from graft.wire.messages.codec import decode_order, encode_answer
from graft.wire.transfer.link import DirectoryLink
from graft_simulation.block.checkpoints import Block, BlockResult
from graft_simulation.store_backed_cache import HeldParts


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """What every task of a run needs to know; small, for it travels with each.

    ``models`` is the store's folder, ``accelerator`` the torch device that stacks train on.
    """

    config: ExpansionConfig
    run: str
    models: AnyPath
    public_key: bytes
    accelerator: str = "cpu"


def carry_out(block: Block, place: Workplace) -> BlockResult:
    """Carry out a block's orders; whatever goes wrong on a device is its named failure."""
    torch.set_num_threads(1)
    world = _world(place.config.world, place.config.seed)
    store = open_store(place.models, world.task)
    entries: list[LedgerEntry] = []
    orders = [decode_order(body) for body in block.orders]
    held = [HeldParts(names, store) for names in block.held]
    bench = _Bench(place, world, store, entries)
    answers = (
        bench.together([o for o in orders if isinstance(o, LearnOrder)], held)
        if block.together
        else [bench.alone(order, parts) for order, parts in zip(orders, held, strict=True)]
    )
    return BlockResult(
        answers=tuple(map(encode_answer, answers)),
        # What a learn order fetched is never asked for again.
        held=tuple(
            tuple(sorted(parts.names)) if isinstance(order, ProbeOrder) else ()
            for order, parts in zip(orders, held, strict=True)
        ),
        entries=tuple(entries),
    )


@dataclass(frozen=True, slots=True)
class _Bench:
    """Where this task's devices are made."""

    place: Workplace
    world: World
    store: DirectoryStore
    entries: list[LedgerEntry]

    def alone(self, order: Order, held: HeldParts) -> Answer:
        try:
            return answer_order(order, self._device(order, held))
        except Exception as error:  # whatever goes wrong on a device has a name at the server
            return failure_of(order, error)

    def together(self, orders: Sequence[LearnOrder], held: Sequence[HeldParts]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        devices: dict[int, Device] = {}
        for number, (order, parts) in enumerate(zip(orders, held, strict=True)):
            try:
                devices[number] = self._device(order, parts)
            except Exception as error:
                answers[number] = failure_of(order, error)
        if devices:
            able = [orders[number] for number in devices]
            taught = answer_together(able, list(devices.values()), self.place.accelerator)
            answers |= zip(devices, taught, strict=True)
        return [answers[number] for number in range(len(orders))]

    def _device(self, order: Order, held: HeldParts) -> Device:
        place = self.place
        return make_device(
            order,
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
