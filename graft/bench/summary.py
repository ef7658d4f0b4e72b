"""The benchmark matrix in numbers: each method on each set, and the main method against it.

A pair is a (seed, domain): every method of a pair had the same rows, labels and initial domains.
Pairs of one person are not independent, so intervals are clustered by person. Accuracies, macro-F1
and gains are shares of 1; bytes are payload bytes.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit

from graft.bench.rows import BenchmarkRow
from graft.report.formatting import ALL_LABELS, LABEL_ONLY, SHIP_ALL
from graft.report.summary import Interval, mean_or_none, share_interval

Pair = tuple[int, str]
Tables = Mapping[str, Mapping[Pair, BenchmarkRow]]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixSummary:
    """One method on one data set at one gamma and N_p, over its pairs of seed and domain.

    ``wanted`` counts the pairs that any method has; means, intervals and ``worst_*`` are over the
    ``finished`` ones, of so many ``persons``. ``gain_*`` is the main method minus this one, over
    the pairs that both finished. ``bytes_*`` and ``device_s`` are means a target domain,
    ``peak_memory_bytes`` is the largest. ``gap_closed`` is the share of the way from label-only to
    all-labels, None where there is no way to go.
    """

    data: str
    gamma: float
    num_sources: int
    method: str
    wanted: int
    finished: int
    persons: int
    accuracy_mean: float | None
    accuracy_interval: Interval | None
    worst_accuracy: float | None
    worst_pair: Pair | None
    gain_mean: float | None
    gain_interval: Interval | None
    gain_pairs: int
    macro_f1_mean: float | None
    bytes_up: float
    bytes_down: float
    ship_all_share: float | None
    gap_closed: float | None
    device_s: float | None
    peak_memory_bytes: int | None

    @property
    def complete(self) -> bool:
        return self.finished == self.wanted

    @property
    def count_label(self) -> str:
        """What every figure of an incomplete method must carry, e.g. "58 of 60"."""
        return f"{self.finished} of {self.wanted}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """One method at one gamma over all sets: each set's mean accuracy, and means over the sets.

    A set of which the method lacks a target domain is left out, for its mean would be over other
    persons; then the means over the sets are None.
    """

    method: str
    accuracy_by_data: Mapping[str, float]
    accuracy_mean: float | None
    gap_closed: float | None


def clustered_interval(values: Sequence[tuple[str, float]]) -> Interval | None:
    """95 % interval of the mean of (cluster, value) pairs; None for fewer than two clusters.

    The cluster-robust variance, G/(G-1) sum_g (sum of g's residuals)^2 / n^2, with G - 1
    degrees of freedom: with one value a cluster it is Student's t interval.
    """
    mean = mean_or_none([value for _, value in values])
    residuals: dict[str, float] = defaultdict(float)
    for cluster, value in values:
        residuals[cluster] += value - (mean or 0.0)
    count = len(residuals)
    if mean is None or count < 2:
        return None
    squares = math.fsum(residual**2 for residual in residuals.values())
    error = math.sqrt(count / (count - 1) * squares) / len(values)
    half = float(stdtrit(count - 1, 0.975)) * error
    return (mean - half, mean + half)


def finished_rows(
    rows: Iterable[BenchmarkRow], *, data: str, gamma: float, num_sources: int
) -> Tables:
    """The rows with an accuracy on one set at one gamma and N_p, by method and pair."""
    tables: dict[str, dict[Pair, BenchmarkRow]] = defaultdict(dict)
    for row in rows:
        here = (row.data, row.gamma, row.num_sources) == (data, gamma, num_sources)
        if here and row.error is None and row.accuracy is not None:
            tables[row.method][row.seed, row.domain_id] = row
    return tables


def gain_pairs(
    better: Mapping[Pair, BenchmarkRow], worse: Mapping[Pair, BenchmarkRow]
) -> list[tuple[str, float]]:
    """(person, difference of accuracies) over the pairs that both finished."""
    return [
        (better[pair].person, accuracy_of(better[pair]) - accuracy_of(worse[pair]))
        for pair in sorted(set(better) & set(worse))
    ]


def accuracy_of(row: BenchmarkRow) -> float:
    """The accuracy of a finished row."""
    assert row.accuracy is not None
    return row.accuracy


def negative_transfer(
    rows: Iterable[BenchmarkRow], *, gamma: float, main: str, num_sources: int, reference: str
) -> tuple[int, int] | None:
    """How many pairs the main method leaves below the reference beyond chance, and of how many.

    The test is McNemar's exact one at 5 %. Rows have no single predictions: as if one of both
    methods were right wherever the other is, p is 2^(1 - d) for d rows of difference, its least
    for these accuracies, so that the count is an upper bound. None without a common pair.
    """
    here = [r for r in rows if r.gamma == gamma and r.num_sources == num_sources]
    below = total = 0
    for data in sorted({row.data for row in here}):
        tables = finished_rows(here, data=data, gamma=gamma, num_sources=num_sources)
        mine, theirs = tables[main], tables[reference]
        for pair in mine.keys() & theirs.keys():
            lost = accuracy_of(theirs[pair]) - accuracy_of(mine[pair])
            difference = round(lost * (mine[pair].num_test or 0))
            below += difference > 0 and 2.0 ** (1 - difference) <= 0.05
            total += 1
    return (below, total) if total else None


def methods_in_order(rows: Iterable[BenchmarkRow], main: str) -> tuple[str, ...]:
    """The main method, then all others by name."""
    names = {row.method for row in rows}
    return (main, *sorted(names - {main})) if main in names else tuple(sorted(names))


def summarise_matrix(
    rows: Sequence[BenchmarkRow], *, data: str, gamma: float, main: str, num_sources: int
) -> tuple[MatrixSummary, ...]:
    """A summary of each method on one set at one gamma and N_p, the main method first."""
    axes = (data, gamma, num_sources)
    here = [row for row in rows if (row.data, row.gamma, row.num_sources) == axes]
    tables = finished_rows(here, data=data, gamma=gamma, num_sources=num_sources)
    wanted = len({(row.seed, row.domain_id) for row in here})
    methods = methods_in_order(here, main)
    return tuple(_summarise(method, tables, wanted, main, axes) for method in methods)


def overviews(summaries: Mapping[str, Sequence[MatrixSummary]], main: str) -> tuple[Overview, ...]:
    """Every method over the sets of one gamma (summaries by set), the best mean first.

    Methods that lack a set come last; the main method is ordered like any other.
    """
    by_method: dict[str, dict[str, MatrixSummary]] = defaultdict(dict)
    for data, each in summaries.items():
        for item in each:
            sets = by_method[item.method]  # one without a whole set is listed all the same
            if item.complete:
                sets[data] = item
    whole = [_overview(method, items, len(summaries)) for method, items in by_method.items()]

    def order(o: Overview) -> tuple[object, ...]:
        mean = o.accuracy_mean
        return (mean is None, -(mean or 0.0), o.method != main, o.method)

    return tuple(sorted(whole, key=order))


def _summarise(
    method: str, tables: Tables, wanted: int, main: str, axes: tuple[str, float, int]
) -> MatrixSummary:
    rows = tables[method]
    values = [(row.person, accuracy_of(row)) for row in rows.values()]
    worst = min(rows, key=lambda pair: (accuracy_of(rows[pair]), pair), default=None)
    gains = gain_pairs(tables[main], rows) if method != main else []

    def of(column: str) -> list[Any]:
        values = (getattr(row, column) for row in rows.values())
        return [value for value in values if value is not None]

    return MatrixSummary(
        data=axes[0],
        gamma=axes[1],
        num_sources=axes[2],
        method=method,
        wanted=wanted,
        finished=len(rows),
        persons=len({row.person for row in rows.values()}),
        accuracy_mean=mean_or_none([value for _, value in values]),
        accuracy_interval=share_interval(clustered_interval(values)),
        worst_accuracy=accuracy_of(rows[worst]) if worst is not None else None,
        worst_pair=worst,
        gain_mean=mean_or_none([gain for _, gain in gains]),
        gain_interval=clustered_interval(gains),
        gain_pairs=len(gains),
        macro_f1_mean=mean_or_none(of("macro_f1")),
        bytes_up=mean_or_none(of("bytes_up")) or 0.0,
        bytes_down=mean_or_none(of("bytes_down")) or 0.0,
        ship_all_share=_ship_all_share(rows, tables[SHIP_ALL]),
        gap_closed=_gap_closed(rows, tables[LABEL_ONLY], tables[ALL_LABELS]),
        device_s=mean_or_none(of("device_s")),
        peak_memory_bytes=max(of("peak_memory_bytes"), default=None),
    )


def _ship_all_share(
    rows: Mapping[Pair, BenchmarkRow], ship_all: Mapping[Pair, BenchmarkRow]
) -> float | None:
    both = set(rows) & set(ship_all)
    whole = sum(ship_all[pair].bytes_down for pair in both)
    return sum(rows[pair].bytes_down for pair in both) / whole if whole else None


def _gap_closed(
    rows: Mapping[Pair, BenchmarkRow],
    label_only: Mapping[Pair, BenchmarkRow],
    all_labels: Mapping[Pair, BenchmarkRow],
) -> float | None:
    shared = sorted(set(rows) & set(label_only) & set(all_labels))
    if not shared:
        return None
    reached, low, high = (
        statistics.fmean(accuracy_of(table[pair]) for pair in shared)
        for table in (rows, label_only, all_labels)
    )
    return (reached - low) / (high - low) if high > low else None


def _overview(method: str, items: Mapping[str, MatrixSummary], num_sets: int) -> Overview:
    accuracies = {d: i.accuracy_mean for d, i in items.items() if i.accuracy_mean is not None}
    gaps = [item.gap_closed for item in items.values() if item.gap_closed is not None]
    whole = len(accuracies) == num_sets
    return Overview(
        method=method,
        accuracy_by_data=accuracies,
        accuracy_mean=mean_or_none(list(accuracies.values())) if whole else None,
        gap_closed=mean_or_none(gaps) if len(gaps) == num_sets else None,
    )
