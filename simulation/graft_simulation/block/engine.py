"""One run through the block engine."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

from graft_server.request_log import Progress
from graft_server.round_loop import RunSettings, run_rounds
from graft_server.signing import open_signer

from graft.core.records import LedgerEntry
from graft.devices.classes import equip_domain
from graft_simulation.block.checkpoints import BlockCheckpoints
from graft_simulation.block.edge import BlockEdge, Domains
from graft_simulation.block.pool import ray_pool, run_inline
from graft_simulation.block.worker import WorkerContext
from graft_simulation.environment import QUIET, empty_directory
from graft_simulation.memory import MemoryMeter


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSettings:
    """How the blocks are carried out; only ``stacked`` and ``accelerator`` touch the result,
    and those within rounding.

    ``workers`` 0: in this process, without Ray. ``ray_address``: a cluster to join.
    """

    workers: int = 2
    ray_address: str | None = None
    accelerator: str = "cpu"
    stacked: bool = True


def run_blocks(settings: RunSettings, blocks: BlockSettings) -> str:
    """Run what is left of the rounds; returns the run's hash. Raises what ``run_rounds`` raises."""
    config, folder, world = settings.config, settings.folder, settings.world
    os.environ.update(QUIET)
    place = WorkerContext(
        config=config,
        run=folder.run_id,
        models=folder.models,
        public_key=open_signer(folder.keys, folder.run_id).public_key,
        accelerator=blocks.accelerator,
    )

    @cache
    def architecture_of(domain_id: str) -> str:
        return equip_domain(domain_id, config.seed, world.task, config.devices)[1]

    steps = BlockCheckpoints(folder.steps)
    with ExitStack() as stack:
        stack.enter_context(empty_directory())
        memory = stack.enter_context(MemoryMeter())
        if blocks.workers:
            pool = stack.enter_context(ray_pool(blocks.workers, blocks.ray_address))
            carry = pool(place)
        else:
            carry = run_inline(place)

        def connect(record: Callable[[LedgerEntry], None], progress: Progress) -> BlockEdge:
            domains = Domains(ids=world.domain_ids, architecture_of=architecture_of)
            edge = BlockEdge(
                folder.run_id, domains, carry, steps, record, progress, stacked=blocks.stacked
            )
            edge.join()
            return edge

        try:
            return run_rounds(connect, settings)
        finally:
            folder.note(peak_memory_bytes=memory.peak_bytes, workers=blocks.workers)
