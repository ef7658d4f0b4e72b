"""The benchmark matrix: its rows, the jobs that compute them, and the report made of them.

Method x data set x gamma x N_p x seed; only missing rows are computed.
"""

from graft.bench.matrix import ROWS, MatrixSettings, compute_matrix
from graft.bench.plan import MatrixPlan, default_methods, name_world

__all__ = [
    "ROWS",
    "MatrixPlan",
    "MatrixSettings",
    "compute_matrix",
    "default_methods",
    "name_world",
]
