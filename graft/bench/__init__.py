"""The evidence matrix: which cells there are, what computes one, and the run over all of them.

Method x data set x gamma x N_p x seed; only cells without a row are computed.
"""

from graft.bench.matrix import ROWS, MatrixProgress, MatrixSettings, compute_matrix
from graft.bench.plan import MatrixPlan, default_methods, name_world

__all__ = [
    "ROWS",
    "MatrixPlan",
    "MatrixProgress",
    "MatrixSettings",
    "compute_matrix",
    "default_methods",
    "name_world",
]
