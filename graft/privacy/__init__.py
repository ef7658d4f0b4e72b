"""What leaves a domain of its data: profiles and centroids, by the site's policy and its budget."""

from graft.privacy.gaussian import Cost, gaussian_sigma
from graft.privacy.policy import (
    Draw,
    Noisy,
    Releases,
    SeededReleases,
    SitePolicy,
    release_cost,
    require_budget,
)
from graft.privacy.profiling import class_centroids, profile_domain

__all__ = [
    "Cost",
    "Draw",
    "Noisy",
    "Releases",
    "SeededReleases",
    "SitePolicy",
    "class_centroids",
    "gaussian_sigma",
    "profile_domain",
    "release_cost",
    "require_budget",
]
