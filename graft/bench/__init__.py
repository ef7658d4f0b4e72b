"""The evidence matrix: which cells there are, what computes one, and the run over all of them.

Method x data set x gamma x N_p x seed; only cells without a row are computed.
"""

from graft.bench.matrix import ROWS, EvidenceSettings, MatrixProgress, compute_evidence
from graft.bench.plan import EvidencePlan, default_methods, name_world

__all__ = [
    "ROWS",
    "EvidencePlan",
    "EvidenceSettings",
    "MatrixProgress",
    "compute_evidence",
    "default_methods",
    "name_world",
]
