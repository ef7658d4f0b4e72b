"""What leaves a domain of its data: profiles and centroids, by the site's policy and its budget."""

from graft.privacy.accounting import (
    NOTHING,
    Cost,
    Mechanism,
    composed_epsilon,
    gaussian_sigma,
    training_cost,
)
from graft.privacy.policy import (
    Draw,
    Noisy,
    Releases,
    SeededReleases,
    SitePolicy,
    release_cost,
    require_budget,
)
from graft.privacy.profiling import class_centroids, count_classes, profile_domain

__all__ = [
    "NOTHING",
    "Cost",
    "Draw",
    "Mechanism",
    "Noisy",
    "Releases",
    "SeededReleases",
    "SitePolicy",
    "class_centroids",
    "composed_epsilon",
    "count_classes",
    "gaussian_sigma",
    "profile_domain",
    "release_cost",
    "require_budget",
    "training_cost",
]
