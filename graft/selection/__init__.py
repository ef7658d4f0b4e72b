"""Which sources a newcomer learns from: coarse ranking by profile, joint scores on the device.

Beside them every published score that they are compared with, and how well each one chose. Those
import scikit-learn and SciPy's statistics where they use them: both, and the pandas that they
load, would take 90 MB of every process of a run, which needs none of them.
"""

from graft.selection.coarse import (
    ProfileRanking,
    Ranked,
    profile_distances,
    rank_catalogue,
    select_candidates,
)
from graft.selection.distribution_scores import (
    frechet_distance,
    mmd_distance,
    profile_frechet_distances,
)
from graft.selection.feature_scores import (
    gbc_score,
    h_score,
    logme_score,
    parc_score,
    transrate_score,
)
from graft.selection.joint import centroid_similarity, joint_scores, smoothed_accuracy
from graft.selection.judge import top_k_regret, top_k_shortfall, weighted_tau
from graft.selection.label_scores import leep_score, likelihood_score, nce_score
from graft.selection.linear_probe import linear_probe_score
from graft.selection.naive import oracle_k, random_k, random_scores, ship_all, top_k
from graft.selection.scores import SCORES, Probe
from graft.selection.trust import (
    Reason,
    beats_chance,
    centroid_consistency,
    find_fault,
    outsiders,
    overblown,
)

__all__ = [
    "SCORES",
    "Probe",
    "ProfileRanking",
    "Ranked",
    "Reason",
    "beats_chance",
    "centroid_consistency",
    "centroid_similarity",
    "find_fault",
    "frechet_distance",
    "gbc_score",
    "h_score",
    "joint_scores",
    "leep_score",
    "likelihood_score",
    "linear_probe_score",
    "logme_score",
    "mmd_distance",
    "nce_score",
    "oracle_k",
    "outsiders",
    "overblown",
    "parc_score",
    "profile_distances",
    "profile_frechet_distances",
    "random_k",
    "random_scores",
    "rank_catalogue",
    "select_candidates",
    "ship_all",
    "smoothed_accuracy",
    "top_k",
    "top_k_regret",
    "top_k_shortfall",
    "transrate_score",
    "weighted_tau",
]
