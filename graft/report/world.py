"""Description of a world: its domains, their class balance, and the distances of their profiles.

Legend: D domains, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from graft.core.config import ExpansionConfig, PolicyConfig
from graft.core.records import IntArray, Task
from graft.data.domain import World
from graft.data.splits import split_rows
from graft.errors import DataError, DomainEmptyError
from graft.privacy import Cost, SeededReleases, SitePolicy, profile_domain
from graft.selection.coarse import ProfileRanking


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WorldDescription:
    """A world's domains, those with alike profiles next to each other.

    ``counts_DC`` counts every row by class. ``distance_DD`` is what coarse selection ranks by
    (``ProfileRanking``), over profiles of the rows that train: 0 on the diagonal, about 1.4 for
    two domains drawn at random. ``unusable`` are the domains left out, with the reason.
    """

    task: Task
    domain_ids: tuple[str, ...]
    persons: tuple[str, ...]
    counts_DC: IntArray
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
    counts, statistics, unusable = {}, [], []
    for number, domain_id in enumerate(world.domain_ids):
        if progress is not None:
            progress(domain_id, number, len(world.domain_ids))
        try:
            data = world.load(domain_id)
            train_N = split_rows(data, config.split, config.seed).train_N
        except DataError as error:
            unusable.append((domain_id, f"{type(error).__name__}: {error}"))
            continue
        profile = profile_domain(domain_id, world.task, data.x[train_N], data.y_N[train_N], _OPEN)
        counts[domain_id] = np.bincount(data.y_N, minlength=world.task.num_classes)
        statistics.append(profile.statistics_D)
    if not counts:
        reasons = "; ".join(reason for _, reason in unusable[:3])
        raise DomainEmptyError(f"world: got no domain that can be used, wanted one: {reasons}")
    ranking = ProfileRanking(np.stack(statistics))
    distance_DD = np.stack([ranking.distances(each) for each in statistics])
    order = _alike_together(distance_DD)
    domain_ids = [tuple(counts)[index] for index in order]
    return WorldDescription(
        task=world.task,
        domain_ids=tuple(domain_ids),
        persons=tuple(world.person(domain_id) for domain_id in domain_ids),
        counts_DC=np.stack([counts[domain_id] for domain_id in domain_ids]),
        distance_DD=distance_DD[np.ix_(order, order)],
        unusable=tuple(unusable),
    )


def world_facts(world: WorldDescription) -> dict[str, Any]:
    """The description as plain values, a record a domain."""
    rows_D = world.counts_DC.sum(1)
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
