"""Which methods differ: Friedman's test over blocks and Nemenyi's critical difference.

After Demsar, JMLR 7 (2006): a block is a (set, seed, domain), within which methods are ranked by
accuracy, the best first; two methods differ at 5 % where their mean ranks are further apart than
the critical difference.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from graft.bench.rows import BenchmarkRow, is_ablation
from graft.bench.summary import accuracy_of
from graft.report.formatting import ALL_LABELS

Block = tuple[str, int, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """Mean ranks, the best method first; 1 is the best possible.

    ``left_out`` are the methods that lack a block of the main method's. ``alike`` are the
    largest groups, as (first, last) positions, within which no two methods differ.
    """

    methods: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    num_blocks: int
    p_value: float
    critical_difference: float
    alike: tuple[tuple[int, int], ...]
    left_out: tuple[str, ...]


def rank_methods(
    rows: Sequence[BenchmarkRow], *, gamma: float, main: str, num_sources: int
) -> Ranking | None:
    """The ranking at one gamma and N_p, over every block that the main method finished.

    All-labels and ablations are no rivals and stay out. None where fewer than three methods,
    or two blocks, can be compared.
    """
    found: dict[str, dict[Block, float]] = defaultdict(dict)
    for row in rows:
        rival = row.method != ALL_LABELS and not is_ablation(row.method, main)
        if rival and (row.gamma, row.num_sources) == (gamma, num_sources):
            found[row.method]  # a method that finished nothing is left out by name
            if row.error is None and row.accuracy is not None:
                found[row.method][row.data, row.seed, row.domain_id] = accuracy_of(row)
    blocks = sorted(found[main])
    methods = sorted(name for name, table in found.items() if set(blocks) <= set(table))
    if len(methods) < 3 or len(blocks) < 2:
        return None
    accuracies_BM = np.array([[found[name][block] for name in methods] for block in blocks])
    ranks_M = rankdata(-accuracies_BM, axis=1).mean(axis=0)
    order = np.argsort(ranks_M, kind="stable")
    ranked = tuple(float(ranks_M[place]) for place in order)
    difference = critical_difference(len(methods), len(blocks))
    differs = bool((np.ptp(accuracies_BM, axis=1) > 0).any())
    p_value = float(friedmanchisquare(*accuracies_BM.T).pvalue) if differs else 1.0
    return Ranking(
        methods=tuple(methods[place] for place in order),
        mean_ranks=ranked,
        num_blocks=len(blocks),
        p_value=p_value,
        critical_difference=difference,
        alike=alike_groups(ranked, difference),
        left_out=tuple(sorted(set(found) - set(methods))),
    )


def critical_difference(num_methods: int, num_blocks: int) -> float:
    """Nemenyi's, at 5 %: q sqrt(k (k + 1) / (6 N)), q from the Studentised range over sqrt(2)."""
    q = float(studentized_range.ppf(0.95, num_methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(num_methods * (num_methods + 1) / (6 * num_blocks))


def alike_groups(ranks: Sequence[float], difference: float) -> tuple[tuple[int, int], ...]:
    """The largest runs of two or more rising ranks that span no more than ``difference``."""
    groups: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(place for place, other in enumerate(ranks) if other - rank <= difference)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return tuple(groups)
