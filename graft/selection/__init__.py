"""Which sources a target domain learns from: coarse ranking by profile, joint scores on the device.

Beside them the published scores that they are compared with, and measures of how well a score
chose. Those import scikit-learn and SciPy's statistics inside their functions: the two take 90 MB
of a process, and no process of a run calls them.
"""

from graft.selection.coarse import (
    ProfileRanking,
    RankedCards,
    profile_distances,
    rank_catalogue,
    select_candidates,
)
from graft.selection.evaluation import (
    oracle_k,
    random_k,
    random_scores,
    ship_all,
    top_k,
    top_k_regret,
    top_k_shortfall,
    weighted_tau,
)
from graft.selection.joint import centroid_similarity, joint_scores, smoothed_accuracy
from graft.selection.scores.distributions import (
    frechet_distance,
    mmd_distance,
    profile_frechet_distances,
)
from graft.selection.scores.features import (
    gbc_score,
    h_score,
    linear_probe_score,
    logme_score,
    parc_score,
    transrate_score,
)
from graft.selection.scores.labels import leep_score, likelihood_score, nce_score
from graft.selection.scores.registry import SCORES, SourceOutputs
from graft.selection.source_checks import (
    Reason,
    above_chance,
    centroid_consistency,
    disagreeing_sources,
    logit_outliers,
    verify_source,
)

__all__ = [
    "SCORES",
    "ProfileRanking",
    "RankedCards",
    "Reason",
    "SourceOutputs",
    "above_chance",
    "centroid_consistency",
    "centroid_similarity",
    "disagreeing_sources",
    "frechet_distance",
    "gbc_score",
    "h_score",
    "joint_scores",
    "leep_score",
    "likelihood_score",
    "linear_probe_score",
    "logit_outliers",
    "logme_score",
    "mmd_distance",
    "nce_score",
    "oracle_k",
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
    "verify_source",
    "weighted_tau",
]
