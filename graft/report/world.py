"""Description of a world: its domains, their class balance, and the distances of their profiles.

Legend: D domains, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from graft.core.config import ExpansionConfig, PolicyConfig
from graft.core.records import DomainProfile, IntArray
from graft.core.streams import select
from graft.core.tasks import Task
from graft.data.domain import World
from graft.data.splits import split_rows
from graft.errors import DataError, DomainEmptyError
from graft.privacy import Cost, SeededReleases, SitePolicy, count_classes, profile_domain
from graft.selection.coarse import ProfileRanking, stream_distances


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WorldDescription:
    """A world's domains, those with alike profiles next to each other.

    ``counts_DC`` counts every row by class or label, ``rows_D`` all rows. ``distance_DD`` is what
    coarse selection ranks by (``ProfileRanking``), over profiles of the rows that train: 0 on the
    diagonal, about 1.4 for two domains drawn at random. ``unusable`` are the domains left out, with
    the reason.
    """

    task: Task
    domain_ids: tuple[str, ...]
    persons: tuple[str, ...]
    counts_DC: IntArray
    rows_D: IntArray
    distance_DD: npt.NDArray[np.float64]
    unusable: tuple[tuple[str, str], ...]

    def nearest(self, index: int) -> tuple[str, float]:
        """The domain of another person with the profile nearest to that of domain ``index``.

        Where all are of one person, itself.
        """
        others = [o for o, person in enumerate(self.persons) if person != self.persons[index]]
        if not others:
            return self.domain_ids[index], 0.0
        best = min(others, key=lambda other: (self.distance_DD[index, other], other))
        return self.domain_ids[best], float(self.distance_DD[index, best])


# A description stays where the data are: no policy withholds anything.
_SETTINGS = PolicyConfig(min_class_count=1)
_OPEN = SitePolicy(_SETTINGS, SeededReleases(_SETTINGS, keys=(), spent=Cost(epsilon=0, delta=0)))


def describe_world(
    world: World, config: ExpansionConfig, progress: Callable[[str, int, int], None] | None = None
) -> WorldDescription:
    """Read every domain once; raises DomainEmptyError where none can be used."""
    counts, rows, profiles, unusable = {}, {}, [], []
    for number, domain_id in enumerate(world.domain_ids):
        if progress is not None:
            progress(domain_id, number, len(world.domain_ids))
        try:
            data = world.load(domain_id)
            train_N = split_rows(data, config.split, config.seed).train_N
        except DataError as error:
            unusable.append((domain_id, f"{type(error).__name__}: {error}"))
            continue
        x, y_N = select(data.x, train_N), data.y_N[train_N]
        profile = profile_domain(domain_id, world.task, x, y_N, _OPEN, data.inputs)
        counts[domain_id] = count_classes(data.y_N, world.task)
        rows[domain_id] = len(data.y_N)
        profiles.append(profile)
    if not counts:
        reasons = "; ".join(reason for _, reason in unusable[:3])
        raise DomainEmptyError(f"world: got no domain that can be used, wanted one: {reasons}")
    distance_DD = _distances(profiles)
    order = _alike_together(distance_DD)
    domain_ids = [tuple(counts)[index] for index in order]
    return WorldDescription(
        task=world.task,
        domain_ids=tuple(domain_ids),
        persons=tuple(world.person(domain_id) for domain_id in domain_ids),
        counts_DC=np.stack([counts[domain_id] for domain_id in domain_ids]),
        rows_D=np.array([rows[domain_id] for domain_id in domain_ids]),
        distance_DD=distance_DD[np.ix_(order, order)],
        unusable=tuple(unusable),
    )


def _distances(profiles: Sequence[DomainProfile]) -> npt.NDArray[np.float64]:
    """Of every two domains, over the streams that both have; the largest where they share none."""
    if not any(profile.inputs for profile in profiles):
        statistics = [profile.statistics_D for profile in profiles]
        ranking = ProfileRanking(np.stack(statistics))
        return np.stack([ranking.distances(each) for each in statistics])
    distance_DD = np.full((len(profiles), len(profiles)), np.inf)
    for row, profile in enumerate(profiles):
        shared = [tuple(n for n in each.inputs if n in profile.inputs) for each in profiles]
        distance_DD[row] = stream_distances([profile], profiles, shared)[0]
        distance_DD[row, [not names for names in shared]] = np.inf
    finite = np.isfinite(distance_DD)
    return np.where(finite, distance_DD, distance_DD[finite].max(initial=0))


def world_facts(world: WorldDescription) -> dict[str, Any]:
    """The description as plain values, a record a domain."""
    rows_D = world.rows_D
    return {
        "name": world.task.name,
        "modality": world.task.modality,
        "sample_shape": list(world.task.sample_shape),
        "classes": dict(zip(world.task.classes, world.counts_DC.sum(0).tolist(), strict=True)),
        "persons": len(set(world.persons)),
        "rows": int(rows_D.sum()),
        "domains": [
            {
                "domain": domain_id,
                "person": world.persons[index],
                "rows": int(rows_D[index]),
                "classes": world.counts_DC[index].tolist(),
                "nearest": world.nearest(index)[0],
                "distance": round(world.nearest(index)[1], 4),
            }
            for index, domain_id in enumerate(world.domain_ids)
        ],
        "unusable": dict(world.unusable),
    }


def _alike_together(distance_DD: npt.NDArray[np.float64]) -> list[int]:
    """An order of the domains in which neighbours are alike: the leaves of their tree."""
    if len(distance_DD) < 3:
        return list(range(len(distance_DD)))
    tree = linkage(squareform(distance_DD, checks=False), "average", optimal_ordering=True)
    return [int(index) for index in leaves_list(tree)]
