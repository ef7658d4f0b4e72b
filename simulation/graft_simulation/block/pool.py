"""Where blocks are carried out: Ray tasks on this machine or a cluster, or this very process."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ray

from graft.errors import EdgeError
from graft_simulation.block.checkpoints import Block, BlockResult
from graft_simulation.block.edge import Carry
from graft_simulation.block.worker import WorkerContext, carry_out

# A Ray of the run's own, not a cluster that somebody else runs here. Nobody looks at its
# dashboard, and its store holds requests and answers only.
_OWN = {"address": "local", "include_dashboard": False, "object_store_memory": 256 * 2**20}
# Tasks waiting at a worker's door; more would only fill the object store with their requests.
_WAITING_PER_WORKER = 2


def run_inline(place: WorkerContext) -> Carry:
    """One block after another, in this process."""

    def carry(blocks: Sequence[Block]) -> Iterator[tuple[int, BlockResult]]:
        for number, block in enumerate(blocks):
            yield number, carry_out(block, place)

    return carry


@contextmanager
def ray_pool(
    workers: int, address: str | None = None
) -> Iterator[Callable[[WorkerContext], Carry]]:
    """Ray for the length of the block: its own on this machine, or the cluster at ``address``.

    A worker that dies has its block carried out again by another. Raises EdgeError where the
    cluster cannot be joined, and where a block is lost for good.
    """
    try:
        ray.init(
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({"address": address} if address else {**_OWN, "num_cpus": workers}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EdgeError(f"Ray at {address or 'this machine'}: {error}") from error
    try:
        yield lambda place: _carry_by_ray(place, workers)
    finally:
        ray.shutdown()


def _carry_by_ray(place: WorkerContext, workers: int) -> Carry:
    task = ray.remote(num_cpus=1, max_retries=3)(carry_out)

    def carry(blocks: Sequence[Block]) -> Iterator[tuple[int, BlockResult]]:
        waiting = iter(enumerate(blocks))
        running: dict[ray.ObjectRef[BlockResult], int] = {}
        while True:
            while len(running) < _WAITING_PER_WORKER * workers:
                following = next(waiting, None)
                if following is None:
                    break
                running[task.remote(following[1], place)] = following[0]
            if not running:
                return
            (done, *_), _ = ray.wait(list(running))
            number = running.pop(done)
            try:
                yield number, ray.get(done)
            except ray.exceptions.RayError as error:
                raise EdgeError(f"a block of domains was lost: {error}") from error

    return carry
