"""Which sources a target domain learns from: coarse ranking by profile, joint scores on the device.

``scores`` holds every score that a probe may rank by, and ``evaluation`` measures of how well a
score chose. Both import scikit-learn and SciPy's statistics inside their functions: the two take
90 MB of a process, and by default no process of a run calls them.
"""

from graft.selection.coarse import ProfileRanking, RankedCards, profile_distances, rank_catalogue
from graft.selection.joint import centroid_similarity, joint_scores, rank_scores, smoothed_accuracy
from graft.selection.source_checks import (
    RECOMPUTED,
    Reason,
    above_chance,
    centroid_consistency,
    disagreeing_sources,
    logit_outliers,
    verify_source,
)

__all__ = [
    "RECOMPUTED",
    "ProfileRanking",
    "RankedCards",
    "Reason",
    "above_chance",
    "centroid_consistency",
    "centroid_similarity",
    "disagreeing_sources",
    "joint_scores",
    "logit_outliers",
    "profile_distances",
    "rank_catalogue",
    "rank_scores",
    "smoothed_accuracy",
    "verify_source",
]
