"""Coarse selection (A1, ours): the server ranks its catalogue by profiles alone.

Legend: S sources, D statistics.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graft.config import SelectionConfig
from graft.errors import EdgeError
from graft.values import DomainProfile, ModelCard


def select_candidates(
    profile: DomainProfile, catalogue: Sequence[ModelCard], config: SelectionConfig
) -> list[tuple[ModelCard, float]]:
    """The N_c nearest source models with their distances, nearest first.

    Ties fall to the lower domain id, so that the catalogue's order decides nothing.
    """
    # A profile of another length, from another program or forged, cannot be compared.
    cards = [
        card
        for card in catalogue
        if card.domain_id != profile.domain_id
        and _statistics(card).size == profile.statistics_D.size
    ]
    if not cards:
        return []
    statistics_SD = np.stack([_statistics(card) for card in cards])
    distance_S = profile_distances(profile.statistics_D, statistics_SD)
    ranked = sorted(range(len(cards)), key=lambda s: (float(distance_S[s]), cards[s].domain_id))
    return [(cards[s], float(distance_S[s])) for s in ranked[: config.candidates_wanted]]


def profile_distances(
    statistics_D: npt.ArrayLike, statistics_SD: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """dist(s) = ||(z_s - z_t) / sigma|| / sqrt(D), sigma the deviation across sources."""
    z_t = np.asarray(statistics_D, np.float64)
    z_s = np.asarray(statistics_SD, np.float64)
    sigma_D = z_s.std(0)
    # A statistic that is the same at every source tells nothing; dividing by its rounding
    # noise would let it decide.
    informative_D = sigma_D > 1e-6 * (1 + np.abs(z_s).mean(0))
    scaled_SD = (z_s - z_t)[:, informative_D] / sigma_D[informative_D]
    distance_S: npt.NDArray[np.float64] = np.sqrt((scaled_SD**2).sum(1) / z_t.size)
    return distance_S


def _statistics(card: ModelCard) -> npt.NDArray[np.float32]:
    if card.profile is None:
        raise EdgeError(f"card of {card.domain_id}: got no profile, wanted one to rank by")
    return card.profile.statistics_D
