"""The block engine: many domains a task, their models trained side by side, on Ray or in process.

The ports and ``graft.rounds`` are the Flower engine's own; what is simulated is only the way.
"""

from graft_simulation.block.checkpoints import Block, BlockCheckpoints, BlockResult
from graft_simulation.block.edge import BlockEdge, Domains
from graft_simulation.block.engine import BlockSettings, run_block_engine, run_inline, run_on_ray
from graft_simulation.block.worker import WorkerContext

__all__ = [
    "Block",
    "BlockCheckpoints",
    "BlockEdge",
    "BlockResult",
    "BlockSettings",
    "Domains",
    "WorkerContext",
    "run_block_engine",
    "run_inline",
    "run_on_ray",
]
