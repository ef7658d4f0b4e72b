"""Coarse selection (A1, ours): the server ranks its catalogue by profiles alone.

Legend: N target domains, S sources, D statistics.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.core.catalogue import Catalogue, as_catalogue
from graft.core.config import SelectionConfig
from graft.core.records import DomainProfile, ModelCard

RankedCards = list[tuple[ModelCard, float]]
_Array = npt.NDArray[np.float64]
_Block = npt.NDArray[np.floating[Any]]
Blocks = Callable[[], Iterable[_Block]]
# Target domains ranked at once: beside 100,000 sources their distances take 50 MB.
_ROWS = 64
# Sources measured at once, and statistics of which all sources' values are in memory at once.
_SOURCES, _COLUMNS = 65_536, 8
# In third quartiles of the sources' distances from their median. Honest profiles of seven data sets
# reach 114 with eight sources or more, and 1,657 with four.
_OUTLIER, _OUTLIER_OF_FEW = 200.0, 10_000.0


class ProfileRanking:
    """The statistics of each source's profile, to be ranked for any number of target domains.

    dist(s) = ||(z_s - z_t) / sigma|| / sqrt(D), sigma the deviation across the sources (ours).
    A statistic that is further from the sources' median than ``_OUTLIER`` times the third quartile
    of all sources' distances from it is cut to that limit and does not enter sigma: one false
    profile cannot scale the others' distances away.

    Parameters
    ----------
    statistics : array (S, D), or callable that gives float32 blocks (S', D) of it in order
        With blocks, no more than one of them and eight statistics of all sources are in memory.
    """

    def __init__(self, statistics: npt.ArrayLike | Blocks) -> None:
        if callable(statistics):
            self._blocks = statistics
        else:
            whole_SD = np.asarray(statistics)
            self._blocks = lambda: (whole_SD,)
        self._low_D, self._high_D = self._limits()
        blocks = self._blocks
        # A mask would change the sums' order, so there is one only where it masks anything.
        is_cut = any(not self._sound(block).all() for block in blocks())
        sound = self._sound if is_cut else lambda block: True
        sources = sum(len(block) for block in blocks())
        number_D: Any = sum(self._sound(block).sum(0) for block in blocks()) if is_cut else sources
        self._mean_D = self._sum(lambda z: z, sound) / number_D
        squares_D = self._sum(lambda z: (z - self._mean_D) ** 2, sound)
        sigma_D: _Array = np.sqrt(squares_D / number_D)
        size_D = self._sum(np.abs, lambda block: True) / sources
        # A statistic that is the same at every source does not inform; divided by its rounding
        # noise it would decide.
        self._informative_D = sigma_D > 1e-6 * (1 + size_D)
        self._sigma_I = sigma_D[self._informative_D]
        # An array is laid out once for all rankings; blocks are in turn, to hold one at a time.
        self._laid_out = None if callable(statistics) else [self._lay_out(whole_SD)]

    def distances(self, statistics_D: npt.ArrayLike) -> _Array:
        """The distance of each of the sources from one target domain."""
        z_t = self._cut(np.asarray(statistics_D))
        return np.concatenate([self._apart(self._cut(block), z_t) for block in self._blocks()])

    def nearest(self, statistics_ND: npt.ArrayLike, count: int) -> list[list[tuple[int, float]]]:
        """For each target domain the ``count`` nearest sources and all as near as the last of
        them, and maybe others: (index of the source, distance), by index and not by distance."""
        z_ND = self._cut(np.asarray(statistics_ND))
        found: list[list[tuple[int, float]]] = [[] for _ in z_ND]
        begin = 0
        for sources_SD, scaled_SI, square_S in self._laid_out or map(self._lay_out, self._blocks()):
            last = min(count, len(square_S)) - 1
            for start in range(0, len(z_ND), _ROWS):
                scaled_BI = self._scaled(z_ND[start : start + _ROWS])
                square_B = (scaled_BI**2).sum(1)
                apart_BS = square_B[:, None] + square_S - 2 * scaled_BI @ scaled_SI.T
                # The product rounds, so sources near the limit are measured exactly.
                slack_B = 1e-9 * (1 + square_B + square_S.max())
                limit_B = np.partition(apart_BS, last, axis=1)[:, last] + slack_B
                for row, (apart_S, limit) in enumerate(zip(apart_BS, limit_B, strict=True), start):
                    near = np.flatnonzero(apart_S <= limit)
                    exact = self._apart(sources_SD[near], z_ND[row])
                    found[row] += zip((begin + near).tolist(), exact.tolist(), strict=True)
            begin += len(square_S)
        return found

    def _limits(self) -> tuple[_Array, _Array]:
        """The least and the greatest value of each statistic that enters sigma."""
        width = next(iter(self._blocks())).shape[1]
        low, high = [], []
        for start in range(0, width, _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            z_SK = np.concatenate([b[:, columns].astype(np.float64) for b in self._blocks()])
            median_K = np.median(z_SK, 0)
            apart_SK = np.abs(z_SK - median_K)
            quartile_K = np.quantile(apart_SK, 0.75, axis=0, method="inverted_cdf")
            limit_K = (_OUTLIER if len(z_SK) >= 8 else _OUTLIER_OF_FEW) * quartile_K
            limit_K[quartile_K == 0] = np.inf  # the others are equal there, and stay so
            low.append(median_K - limit_K)
            high.append(median_K + limit_K)
        return np.concatenate(low), np.concatenate(high)

    def _sound(self, block: _Block) -> npt.NDArray[np.bool_]:
        sound: npt.NDArray[np.bool_] = (block >= self._low_D) & (block <= self._high_D)
        return sound

    def _sum(self, term: Callable[[_Array], _Array], where: Callable[[_Block], Any]) -> _Array:
        """The sum (D,) of a term over all sources' statistics, where they are wanted."""
        parts = (term(self._cut(b)).sum(0, where=where(b)) for b in self._blocks())
        return reduce(np.add, parts)

    def _cut(self, block: _Block) -> _Array:
        cut: _Array = np.clip(block.astype(np.float64), self._low_D, self._high_D)
        return cut

    def _lay_out(self, block: _Block) -> tuple[_Array, _Array, _Array]:
        sources_SD = self._cut(block)
        scaled_SI = self._scaled(sources_SD)
        return sources_SD, scaled_SI, (scaled_SI**2).sum(1)

    def _apart(self, sources_SD: _Array, z_t: _Array) -> _Array:
        apart_SI = (sources_SD - z_t)[:, self._informative_D] / self._sigma_I
        distance_S: _Array = np.sqrt((apart_SI**2).sum(1) / z_t.size)
        return distance_S

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
    cards = as_catalogue(catalogue)
    wanted = config.candidates_wanted
    nearest: list[list[tuple[int, float]]] = [[] for _ in profiles]
    for size, sources in cards.statistics_sizes().items():
        rows = [row for row, p in enumerate(profiles) if p.statistics_D.size == size]
        if not rows:
            continue
        ranking = ProfileRanking(partial(_blocks, cards, sources))
        statistics_ND = np.stack([profiles[row].statistics_D for row in rows])
        # One more than wanted, for the target domain itself may be among the sources.
        for row, found in zip(rows, ranking.nearest(statistics_ND, wanted + 1), strict=True):
            own = profiles[row].domain_id.encode()
            near = [
                (distance, cards.domain_ids[sources[s]], int(sources[s]))
                for s, distance in found
                if cards.domain_ids[sources[s]] != own
            ]
            nearest[row] = [(place, distance) for distance, _, place in sorted(near)[:wanted]]
    places = sorted({place for found in nearest for place, _ in found})
    card_of = dict(zip(places, cards.cards(np.array(places, np.intp)), strict=True))
    return [[(card_of[place], distance) for place, distance in found] for found in nearest]


def _blocks(cards: Catalogue, rows: npt.NDArray[np.intp]) -> Iterator[_Block]:
    for start in range(0, len(rows), _SOURCES):
        yield cards.statistics(rows[start : start + _SOURCES])


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
