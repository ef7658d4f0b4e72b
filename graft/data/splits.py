"""Which rows of a domain train, test and are labelled; which domains arrive in which round.

Legend: N rows of a domain, C classes, G groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graft.core.config import GrowthConfig, SplitConfig
from graft.core.exchange import Growth
from graft.core.records import BoolArray, IntArray
from graft.core.seeding import stream
from graft.data.domain import DomainData, World
from graft.errors import ConfigError, DatasetFormatError, DomainEmptyError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DomainSplit:
    """Row indices of one domain, each ascending, hence in time order.

    ``train_N`` and ``test_N`` share no row and no group and together hold every row;
    ``labelled_N`` are the train rows whose labels the domain may use.
    """

    train_N: IntArray
    test_N: IntArray
    labelled_N: IntArray

    @property
    def unlabelled_N(self) -> IntArray:  # noqa: N802 - a shape suffix
        """The train rows without a usable label."""
        return np.setdiff1d(self.train_N, self.labelled_N, assume_unique=True)

    def without(self, dropped_N: BoolArray) -> "DomainSplit":
        """The split without the rows that are marked, of all rows of the domain."""
        return DomainSplit(
            train_N=self.train_N[~dropped_N[self.train_N]],
            test_N=self.test_N[~dropped_N[self.test_N]],
            labelled_N=self.labelled_N[~dropped_N[self.labelled_N]],
        )


def split_rows(
    data: DomainData, config: SplitConfig, seed: int, *, by_labels: bool = True
) -> DomainSplit:
    """Split a domain by time: of each class the latest groups test, the earlier ones train.

    Groups stay whole and every class keeps at least one of its groups in train, so the
    tested share of a class is as near to ``test_fraction`` as its groups allow. Data with a split
    of their own keep it. The labelled rows are drawn from (seed, domain).

    ``by_labels`` False, and labels or amounts in place of classes: no label decides where a row
    belongs, so that another label moves no other row, which the noise of a site's policy presumes.
    The latest groups of all test, and the labelled rows are drawn from all of train.

    Raises
    ------
    DomainEmptyError
        Either side would be empty.
    DatasetFormatError
        The data's own split divides a group.
    """
    by_labels = by_labels and data.y_N.ndim == 1  # labels and amounts are no classes
    if data.split_N is not None:
        is_test_N = _fixed_block(data, data.split_N)
    elif by_labels:
        is_test_N = _latest_block(data, config)
    else:
        is_test_N = _latest_groups(data, config)
    train_N, test_N = np.flatnonzero(~is_test_N), np.flatnonzero(is_test_N)
    for side, rows in (("train", train_N), ("test", test_N)):
        if not len(rows):
            raise DomainEmptyError(
                f"domain {data.domain_id}: got no {side} rows of {len(data.y_N)}, wanted at "
                "least 1: each class needs two recording segments to be split by time"
            )
    rng = stream("labelled", seed, data.domain_id)
    if by_labels:
        labelled_N = _draw_by_class(data, train_N, config.gamma, rng)
    else:
        labelled_N = np.sort(rng.permutation(train_N)[: max(2, round(config.gamma * len(train_N)))])
    return DomainSplit(train_N=train_N, test_N=test_N, labelled_N=labelled_N)


def schedule_rounds(
    world: World, config: SplitConfig, rounds: int, seed: int
) -> tuple[tuple[str, ...], ...]:
    """Domain ids by round of arrival: the initial domains (round 0), then ``rounds`` even parts.

    Persons are drawn, not domains: all domains of one person arrive together, so that no
    target domain learns from a model of its own person from an earlier round. The order
    depends on the seed only. Raises ConfigError where a round would stay empty.
    """
    domains_by_person: dict[str, list[str]] = {}
    for domain_id in world.domain_ids:
        domains_by_person.setdefault(world.person(domain_id), []).append(domain_id)
    persons = sorted(domains_by_person)
    order = stream("schedule", seed).permutation(len(persons))
    num_initial = round(config.initial_fraction * len(persons))
    parts = [order[:num_initial], *np.array_split(order[num_initial:], rounds)]
    for index, part in enumerate(parts):
        if not len(part):
            raise ConfigError(
                f"round {index}: got no person ({len(persons)} in the world, {num_initial} "
                f"of them initial domains, {rounds} rounds), wanted at least 1 in every round"
            )
    return tuple(
        tuple(domain_id for p in part for domain_id in domains_by_person[persons[p]])
        for part in parts
    )


def schedule_growth(
    rounds: Sequence[Sequence[str]], config: GrowthConfig, seed: int
) -> Mapping[int, tuple[Growth, ...]]:
    """By round, which domains of earlier rounds come back, and what with.

    One at least; who comes back depends on the seed only. Raises ConfigError where
    ``growth.round`` is not among the rounds.
    """
    if not config.classes:
        return {}
    if config.round >= len(rounds):
        raise ConfigError(f"growth.round: got {config.round}, wanted below {len(rounds)}")
    there = sorted(domain_id for part in rounds[: config.round] for domain_id in part)
    order = stream("growth", seed).permutation(len(there))
    returning = sorted(order[: max(1, round(config.fraction * len(there)))])
    return {
        config.round: tuple(
            Growth(domain_id=there[place], classes=config.classes) for place in returning
        )
    }


def _fixed_block(data: DomainData, split_N: npt.NDArray[np.int8]) -> BoolArray:
    is_test_N: BoolArray = split_N == 1
    cut = np.intersect1d(data.group_N[is_test_N], data.group_N[~is_test_N])
    if len(cut):
        raise DatasetFormatError(
            f"domain {data.domain_id}: split: got group {cut[0]} on both sides, wanted whole groups"
        )
    return is_test_N


def _latest_block(data: DomainData, config: SplitConfig) -> BoolArray:
    group_of_row_N, counts_GC = _count_groups(data)
    # Plain numbers, rows by class: a group holds a class or two, and arrays of that size would
    # be most of what a split costs.
    rows_GC: list[dict[int, int]] = [{} for _ in counts_GC]
    filled = np.nonzero(counts_GC)
    for (group, label), count in zip(
        np.transpose(filled).tolist(), counts_GC[filled].tolist(), strict=True
    ):
        rows_GC[group][label] = count
    total_C: list[int] = counts_GC.sum(0).tolist()
    train_C = total_C.copy()
    is_test_G = np.zeros(len(rows_GC), np.bool_)
    for label, all_rows in enumerate(total_C):
        target = config.test_fraction * all_rows
        for group in reversed(np.flatnonzero(counts_GC[:, label]).tolist()):
            if is_test_G[group]:
                continue
            taken = all_rows - train_C[label]
            rows = rows_GC[group][label]
            # A class with few long segments still gets a test block, if that leaves it half.
            first = taken == 0 and 2 * rows <= all_rows
            if not first and abs(taken + rows - target) >= abs(taken - target):
                break
            if _can_leave(rows_GC[group], train_C):
                is_test_G[group] = True
                for own, count in rows_GC[group].items():
                    train_C[own] -= count
    # Where every block is too long for its class's share, one too long beats no test at all.
    if not is_test_G.any():
        for group in reversed(range(len(rows_GC))):
            if _can_leave(rows_GC[group], train_C):
                is_test_G[group] = True
                break
    is_test_N: BoolArray = is_test_G[group_of_row_N]
    return is_test_N


def _latest_groups(data: DomainData, config: SplitConfig) -> BoolArray:
    """The latest groups whose rows are nearest to the test fraction, one at least and not all."""
    group_of_row_N, counts_GC = _count_groups(data)
    rows_of_latest_G = counts_GC.sum(1)[::-1].cumsum()[:-1]
    apart_G = np.abs(rows_of_latest_G - config.test_fraction * len(group_of_row_N))
    num_groups = int(apart_G.argmin()) + 1 if len(apart_G) else 0
    is_test_N: BoolArray = group_of_row_N >= len(counts_GC) - num_groups
    return is_test_N


def _can_leave(rows_C: dict[int, int], train_C: list[int]) -> bool:
    """Whether every class of a group keeps rows in train without the group."""
    return all(count < train_C[label] for label, count in rows_C.items())


def _count_groups(data: DomainData) -> tuple[IntArray, IntArray]:
    """Each row's group as a position in time (N), and the rows of each class in it (G, C)."""
    y_N = data.y_N if data.y_N.ndim == 1 else np.zeros(len(data.y_N), np.int64)
    _, first_row_G, group_of_row_N = np.unique(data.group_N, return_index=True, return_inverse=True)
    # Group numbers are names; a group's position in time is that of its first row.
    position_G = np.empty(len(first_row_G), np.int64)
    position_G[np.argsort(first_row_G)] = np.arange(len(first_row_G))
    group_of_row_N = position_G[group_of_row_N]
    counts_GC = np.zeros((len(position_G), int(y_N.max(initial=0)) + 1), np.int64)
    np.add.at(counts_GC, (group_of_row_N, y_N), 1)
    return group_of_row_N, counts_GC


def _draw_by_class(
    data: DomainData, train_N: IntArray, gamma: float, rng: np.random.Generator
) -> IntArray:
    labels, counts = np.unique(data.y_N[train_N], return_counts=True)
    wanted = gamma * counts
    quotas = np.maximum(1, np.floor(wanted)).astype(np.int64)
    # Largest remainders make the total gamma of the block; ties are drawn, not given to class 0.
    by_remainder = np.lexsort((rng.random(len(labels)), quotas - wanted))
    spare = max(0, round(gamma * len(train_N)) - int(quotas.sum()))
    quotas[by_remainder[:spare]] += 1
    quotas = np.minimum(quotas, counts)
    drawn = [
        rng.permutation(train_N[data.y_N[train_N] == label])[:quota]
        for label, quota in zip(labels, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
