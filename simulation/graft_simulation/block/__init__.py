"""The block engine: many domains a task, their models trained side by side, on Ray or in process.

The ports and ``graft.rounds`` are the Flower engine's own; what is simulated is only the way.
"""

from graft_simulation.block.checkpoints import Block, BlockResult, StepFolder
from graft_simulation.block.edge import BlockEdge, Domains
from graft_simulation.block.engine import BlockSettings, run_blocks
from graft_simulation.block.pool import carry_here, ray_pool
from graft_simulation.block.worker import Workplace

__all__ = [
    "Block",
    "BlockEdge",
    "BlockResult",
    "BlockSettings",
    "Domains",
    "StepFolder",
    "Workplace",
    "carry_here",
    "ray_pool",
    "run_blocks",
]
