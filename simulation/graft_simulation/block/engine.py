"""One run through the block engine: blocks run by workers, a Ray cluster, or in this process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache

import torch
from graft_server.round_loop import RunSettings, run_rounds
from graft_server.signing import open_signer

from graft.core.exchange import Request
from graft.core.ports import Progress
from graft.core.records import LedgerEntry
from graft.data.domain import inputs_of
from graft.devices import equip_domain
from graft.errors import EdgeError
from graft.rounds.exchange_cost import memory_limit
from graft_simulation.block.checkpoints import Block, BlockCheckpoints, BlockResult
from graft_simulation.block.edge import BlockEdge, Domains, RunBlocks
from graft_simulation.block.worker import WorkerContext, run_block
from graft_simulation.environment import memory_measured, pack_plug_ins, ray_started
from graft_simulation.full_disk import ended_by_full_disk
from graft_simulation.workers import Workers

# Tasks waiting for each worker; more would only fill the object store with their requests.
_WAITING_PER_WORKER = 2


def run_block_engine(
    settings: RunSettings,
    *,
    workers: int = 2,
    ray_address: str | None = None,
    accelerator: str = "cpu",
    stacked: bool = True,
) -> str:
    """Run what is left of the rounds; returns the run's hash. Raises what ``run_rounds`` raises.

    ``workers`` 0: in this process. ``ray_address``: a cluster to join instead. Only
    ``stacked`` and ``accelerator`` touch the result, within rounding.
    """
    config, folder, world = settings.config, settings.folder, settings.world
    context = WorkerContext(
        config=config,
        run=folder.run_id,
        models=folder.models,
        public_key=open_signer(folder.keys, folder.run_id).public_key,
        accelerator=accelerator,
        plug_ins=pack_plug_ins(config) if workers else None,
    )

    @cache
    def architecture_within(domain_id: str, memory: int | None) -> str:
        return equip_domain(
            domain_id, config.seed, world.task, config.devices, inputs_of(world, domain_id), memory
        )[1]

    def architecture_of(request: Request) -> str:
        memory = memory_limit(config, config.policy, request.round_index)
        return architecture_within(request.domain_id, memory)

    def connect(record: Callable[[LedgerEntry], None], progress: Progress) -> BlockEdge:
        edge = BlockEdge(
            folder.run_id,
            Domains(ids=world.domain_ids, architecture_of=architecture_of),
            run_blocks,
            BlockCheckpoints(folder.steps),
            record,
            progress,
            stacked=stacked,
        )
        edge.join()
        return edge

    with ExitStack() as started:
        if not workers:
            run_blocks = run_inline(context)
        elif ray_address is None:
            run_blocks = run_on_workers(context, started.enter_context(Workers(workers)))
        else:
            started.enter_context(ray_started(workers, ray_address))
            run_blocks = run_on_ray(context, workers)
        memory = started.enter_context(memory_measured())
        try:
            return run_rounds(ended_by_full_disk(connect), settings)
        finally:
            folder.note(peak_memory_bytes=memory.peak_bytes, workers=workers)


def run_inline(context: WorkerContext) -> RunBlocks:
    """Blocks one after another, in this process, whose torch threads are as before after each."""

    def run(blocks: Sequence[Block]) -> Iterator[tuple[int, BlockResult]]:
        for number, block in enumerate(blocks):
            threads = torch.get_num_threads()
            try:
                result = run_block(block, context)
            finally:
                torch.set_num_threads(threads)
            yield number, result

    return run


def run_on_workers(context: WorkerContext, workers: Workers) -> RunBlocks:
    """Blocks as calls of forked workers of this machine."""

    def run(blocks: Sequence[Block]) -> Iterator[tuple[int, BlockResult]]:
        return workers.run(run_block, [(block, context) for block in blocks])

    return run


def run_on_ray(context: WorkerContext, workers: int) -> RunBlocks:
    """Blocks as tasks of Ray, which has to be running (``ray_started``).

    A block whose worker dies is run again by another; EdgeError where it is lost for good.
    """
    import ray  # a run in this process does without

    task = ray.remote(num_cpus=1, max_retries=3)(run_block)

    def run(blocks: Sequence[Block]) -> Iterator[tuple[int, BlockResult]]:
        waiting = iter(enumerate(blocks))
        running: dict[ray.ObjectRef[BlockResult], int] = {}
        while True:
            while len(running) < _WAITING_PER_WORKER * workers:
                following = next(waiting, None)
                if following is None:
                    break
                running[task.remote(following[1], context)] = following[0]
            if not running:
                return
            (done, *_), _ = ray.wait(list(running))
            number = running.pop(done)
            try:
                yield number, ray.get(done)
            except ray.exceptions.RayError as error:
                raise EdgeError(f"a block of domains was lost: {error}") from error

    return run
