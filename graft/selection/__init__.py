"""Which sources a newcomer learns from: coarse ranking by profile, joint scores on the device."""

from graft.selection.coarse import profile_distances, select_candidates
from graft.selection.joint import centroid_similarity, joint_scores, smoothed_accuracy

__all__ = [
    "centroid_similarity",
    "joint_scores",
    "profile_distances",
    "select_candidates",
    "smoothed_accuracy",
]
