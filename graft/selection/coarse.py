"""Coarse selection (A1, ours): the server ranks its catalogue by profiles alone.

Legend: N target domains, S sources, D statistics.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.core.config import SelectionConfig
from graft.core.records import DomainProfile, ModelCard
from graft.errors import EdgeError

RankedCards = list[tuple[ModelCard, float]]
_Array = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]
_ALL = slice(None)
# Target domains ranked at once: beside 100,000 sources their distances take 50 MB.
_ROWS = 64
# In third quartiles of the sources' distances from their median. Honest profiles of seven data sets
# reach 114 with eight sources or more, and 1,657 with four.
_OUTLIER, _OUTLIER_OF_FEW = 200.0, 10_000.0


class ProfileRanking:
    """The statistics of each source's profile, to be ranked for any number of target domains.

    dist(s) = ||(z_s - z_t) / sigma|| / sqrt(D), sigma the deviation across the sources (ours).
    A statistic that is further from the sources' median than ``_OUTLIER`` times the third quartile
    of all sources' distances from it is cut to that limit and does not enter sigma: one false
    profile cannot scale the others' distances away.
    """

    def __init__(self, statistics_SD: npt.ArrayLike) -> None:
        self._sources_SD = np.asarray(statistics_SD)
        z_SD = np.asarray(statistics_SD, np.float64)
        median_D = np.median(z_SD, 0)
        apart_SD = np.abs(z_SD - median_D)
        quartile_D = np.quantile(apart_SD, 0.75, axis=0, method="inverted_cdf")
        limit_D = (_OUTLIER if len(z_SD) >= 8 else _OUTLIER_OF_FEW) * quartile_D
        limit_D[quartile_D == 0] = np.inf  # the others are equal there, and stay so
        self._low_D, self._high_D = median_D - limit_D, median_D + limit_D
        sound_SD = (z_SD >= self._low_D) & (z_SD <= self._high_D)
        where: Any = True if sound_SD.all() else sound_SD  # a mask would change the sums' order
        if not sound_SD.all():
            self._sources_SD = z_SD = np.clip(z_SD, self._low_D, self._high_D)
        self._mean_D, sigma_D = z_SD.mean(0, where=where), z_SD.std(0, where=where)
        # A statistic that is the same at every source does not inform; divided by its rounding
        # noise it would decide.
        self._informative_D = sigma_D > 1e-6 * (1 + np.abs(z_SD).mean(0))
        self._sigma_I = sigma_D[self._informative_D]
        self._scaled_SI = self._scaled(z_SD)
        self._square_S = (self._scaled_SI**2).sum(1)

    def distances(self, statistics_D: npt.ArrayLike, sources: slice | _Indices = _ALL) -> _Array:
        """The distance of each of the sources from one target domain."""
        z_t = np.clip(np.asarray(statistics_D, np.float64), self._low_D, self._high_D)
        z_s = self._sources_SD[sources].astype(np.float64)
        apart_SI = (z_s - z_t)[:, self._informative_D] / self._sigma_I
        distance_S: _Array = np.sqrt((apart_SI**2).sum(1) / z_t.size)
        return distance_S

    def nearest(
        self, statistics_ND: npt.ArrayLike, count: int
    ) -> Iterator[list[tuple[int, float]]]:
        """For each target domain the ``count`` nearest sources and all as near as the last of
        them: (index of the source, distance), by index and not by distance."""
        z_ND = np.clip(np.asarray(statistics_ND, np.float64), self._low_D, self._high_D)
        last = min(count, len(self._square_S)) - 1
        for start in range(0, len(z_ND), _ROWS):
            scaled_BI = self._scaled(z_ND[start : start + _ROWS])
            square_B = (scaled_BI**2).sum(1)
            apart_BS = square_B[:, None] + self._square_S - 2 * scaled_BI @ self._scaled_SI.T
            # The product rounds, so sources near the limit are measured exactly.
            slack_B = 1e-9 * (1 + square_B + self._square_S.max())
            limit_B = np.partition(apart_BS, last, axis=1)[:, last] + slack_B
            for row, (apart_S, limit) in enumerate(zip(apart_BS, limit_B, strict=True)):
                near = np.flatnonzero(apart_S <= limit)
                exact = self.distances(z_ND[start + row], near)
                yield list(zip(near.tolist(), exact.tolist(), strict=True))

    def _scaled(self, z: _Array) -> _Array:
        scaled: _Array = (z - self._mean_D)[:, self._informative_D] / self._sigma_I
        return scaled


def rank_catalogue(
    profiles: Sequence[DomainProfile], catalogue: Sequence[ModelCard], config: SelectionConfig
) -> list[RankedCards]:
    """For each target domain the N_c nearest source models with their distances, nearest first.

    Ties fall to the lower domain id, so that the catalogue's order does not matter. A source whose
    profile has another number of statistics (another program's, or forged) is left out. Raises
    EdgeError for a card without a profile.

    Where domains have several streams, a source is a candidate of the target domains that have all
    streams it reads, and its distance is over their statistics (``stream_distances``).
    """
    if any(profile.inputs for profile in profiles):
        return _rank_by_streams(profiles, catalogue, config.candidates_wanted)
    ranked: list[RankedCards] = [[] for _ in profiles]
    for size in {profile.statistics_D.size for profile in profiles}:
        cards = [card for card in catalogue if _statistics(card).size == size]
        rows = [row for row, p in enumerate(profiles) if p.statistics_D.size == size]
        if not cards:
            continue
        ranking = ProfileRanking(np.stack([_statistics(card) for card in cards]))
        statistics_ND = np.stack([profiles[row].statistics_D for row in rows])
        # One more than wanted, for the target domain itself may be among the sources.
        nearest = ranking.nearest(statistics_ND, config.candidates_wanted + 1)
        for row, found in zip(rows, nearest, strict=True):
            own = profiles[row].domain_id
            near = [(cards[s], distance) for s, distance in found if cards[s].domain_id != own]
            near.sort(key=lambda pair: (pair[1], pair[0].domain_id))
            ranked[row] = near[: config.candidates_wanted]
    return ranked


def stream_distances(
    targets: Sequence[DomainProfile],
    sources: Sequence[DomainProfile],
    reads: Sequence[tuple[str, ...]],
) -> _Array:
    """Distance (N, S) of sources by the statistics of the streams that each reads; infinite where
    the target domain lacks one of them.

    Each stream has a ``ProfileRanking`` of its own, over the sources that have the stream.
    """
    total_NS = np.zeros((len(targets), len(sources)))
    count_S = np.zeros(len(sources))
    for name in dict.fromkeys(name for each in reads for name in each):
        own = [s for s, profile in enumerate(sources) if name in profile.inputs]
        reading = np.array([name in each for each in reads])
        parts = [_of_stream(sources[s], name) for s in own]
        sizes = [len(part) for part in parts]
        count_S += reading * (sizes[0] if sizes else 0)
        ranking = ProfileRanking(np.stack(parts)) if parts else None
        for row, target in enumerate(targets):
            apart_S = np.full(len(sources), np.inf)
            if ranking is not None and name in target.inputs:
                apart_S[own] = ranking.distances(_of_stream(target, name)) ** 2 * sizes[0]
            total_NS[row, reading] += apart_S[reading]
    return np.sqrt(total_NS / np.maximum(count_S, 1))


def _of_stream(profile: DomainProfile, name: str) -> npt.NDArray[np.float32]:
    end = np.cumsum(profile.input_sizes)
    index = profile.inputs.index(name)
    return profile.statistics_D[end[index] - profile.input_sizes[index] : end[index]]


def _rank_by_streams(
    profiles: Sequence[DomainProfile], catalogue: Sequence[ModelCard], wanted: int
) -> list[RankedCards]:
    own = [(card, card.profile) for card in catalogue if card.profile is not None]
    cards = [(card, profile) for card, profile in own if profile.inputs]
    if not cards:
        return [[] for _ in profiles]
    distance_NS = stream_distances(
        profiles,
        [profile for _, profile in cards],
        [card.inputs or profile.inputs for card, profile in cards],
    )
    ranked = []
    for target, distance_S in zip(profiles, distance_NS.tolist(), strict=True):
        pairs = zip((card for card, _ in cards), distance_S, strict=True)
        near = [
            (card, distance)
            for card, distance in pairs
            if card.domain_id != target.domain_id and distance < np.inf
        ]
        near.sort(key=lambda pair: (pair[1], pair[0].domain_id))
        ranked.append(near[:wanted])
    return ranked


def profile_distances(statistics_D: npt.ArrayLike, statistics_SD: npt.ArrayLike) -> _Array:
    """Distance (S,) of one target domain from every source (see ``ProfileRanking``)."""
    return ProfileRanking(statistics_SD).distances(statistics_D)


def _statistics(card: ModelCard) -> npt.NDArray[np.float32]:
    if card.profile is None:
        raise EdgeError(f"card of {card.domain_id}: got no profile, wanted one to rank by")
    return card.profile.statistics_D
