"""A run in numbers: accuracy, gain, bytes and time by method, by round and by device class.

A target is a (round, domain) pair of rounds 1 and later. Accuracies, macro-F1 and gains are
shares of 1. Where the output is no classes, "accuracy" is the first of its scores (``SCORES``).
Bytes are payload bytes; seconds are measured on the device unless named simulated.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import expit, logit, stdtrit

from graft.core.config import ExpansionConfig
from graft.core.results import ResultRow
from graft.core.tasks import OutputKind
from graft.methods import INITIAL
from graft.report.formatting import LABEL_ONLY, SHIP_ALL
from graft.report.run import DOWN, UP, payload_by

Interval = tuple[float, float]
Target = tuple[int, str]
Percentiles = tuple[float, float, float]
PERCENTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerSummary:
    """What other domains found of the catalogue's models: models that were probed, and how often
    they were probed, chosen and rejected. Other methods than the main one have no such models."""

    models: int = 0
    probed: int = 0
    chosen: int = 0
    rejected: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodSummary:
    """One method over the ``wanted`` targets of a run.

    Means, ``worst_*`` and intervals are over the ``finished`` ones, and None where there are none
    (an interval needs two); ``failed`` have an error, ``missing`` have no row. ``gain_*`` is
    accuracy minus label-only's, over the targets that finished both. Totals include what failed
    targets spent. ``ship_all_share`` is bytes down over ship-all's, without targets that either
    did not finish; None where ship-all was not run.
    """

    method: str
    wanted: int
    finished: int
    failed: tuple[str, ...]
    missing: tuple[str, ...]
    accuracy_mean: float | None
    accuracy_interval: Interval | None
    worst_accuracy: float | None
    worst_domain: str | None
    gain_mean: float | None
    gain_interval: Interval | None
    gain_pairs: int
    macro_f1_mean: float | None
    bytes_up: int
    bytes_down: int
    ship_all_share: float | None
    device_s_total: float
    device_s_mean: float | None
    peak_memory_bytes: int | None
    peers: "PeerSummary"
    output: OutputKind = "classes"
    mean_average_precision_mean: float | None = None
    mean_absolute_error_mean: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every target finished the method."""
        return self.finished == self.wanted

    @property
    def count_label(self) -> str:
        """The share of targets that finished, e.g. "58 of 60"."""
        return f"{self.finished} of {self.wanted}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundSummary:
    """One method in one round (1 and later): accuracy over the targets that finished."""

    method: str
    round_index: int
    wanted: int
    finished: int
    accuracy_mean: float | None
    accuracy_interval: Interval | None
    output: OutputKind = "classes"


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainGain:
    """One target's accuracy under a method minus its own under label-only."""

    domain_id: str
    round_index: int
    gain: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassTimes:
    """Seconds of one device class under one method, as nearest-rank p50, p95 and p99.

    A triple is None where nothing was timed. ``late`` counts the targets whose simulated round
    ended after the deadline; None without one.
    """

    device_class: str
    targets: int
    measured_compute_s: Percentiles | None
    simulated_compute_s: Percentiles | None
    simulated_round_s: Percentiles | None
    late: int | None


def mean_or_none(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing."""
    return statistics.fmean(values) if values else None


def mean_interval(values: Sequence[float]) -> Interval | None:
    """95 % Student t interval of the mean; None for fewer than two values."""
    count = len(values)
    if count < 2:
        return None
    mean = statistics.fmean(values)
    half = float(stdtrit(count - 1, 0.975)) * statistics.stdev(values) / math.sqrt(count)
    return (mean - half, mean + half)


def share_interval(interval: Interval | None) -> Interval | None:
    """The interval of a mean of shares, inside 0 to 1; of a mean that is no share, as it is.

    One that lies inside is left as it is; another is taken on the logit scale, with half its width
    over the derivative m (1 - m) of the mean m (delta method).
    """
    if interval is None or (interval[0] >= 0 and interval[1] <= 1):
        return interval
    mean, half = sum(interval) / 2, (interval[1] - interval[0]) / 2
    if mean < 0:  # R2
        return interval
    if not 0 < mean < 1:
        return (min(max(mean, 0.0), 1.0),) * 2
    width = half / (mean * (1 - mean))
    low, high = expit([logit(mean) - width, logit(mean) + width])
    return float(low), float(high)


def methods_of(rows: Iterable[ResultRow], config: ExpansionConfig) -> tuple[str, ...]:
    """The configured methods in their order, then any other that the rows hold."""
    known = config.methods
    others = {row.method for row in rows if row.round_index >= 1 and not row.is_growth}
    others -= {*known, INITIAL}
    return (*known, *sorted(others))


def is_finished(row: ResultRow) -> bool:
    """Whether the row has an accuracy to count; a NaN is none."""
    return row.error is None and row.score is not None and math.isfinite(row.score)


def finished_accuracies(rows: Iterable[ResultRow], method: str) -> dict[Target, float]:
    """Accuracy of each target that finished ``method``."""
    return {
        (row.round_index, row.domain_id): row.score
        for row in rows
        if row.round_index >= 1 and row.method == method
        if is_finished(row) and row.score is not None
    }


def domain_gains(rows: Sequence[ResultRow], method: str) -> tuple[DomainGain, ...]:
    """Gains over label-only, lowest first, of the targets that finished both."""
    return _gains(finished_accuracies(rows, method), finished_accuracies(rows, LABEL_ONLY))


def summarise(
    rows: Sequence[ResultRow], ledger: pa.Table, config: ExpansionConfig
) -> tuple[MethodSummary, ...]:
    """Each method over rounds 1 and later: the main one, the comparisons, others of the rows.

    ``ledger`` has the columns of ``LEDGER_SCHEMA``.
    """
    outcomes: dict[str, dict[Target, ResultRow]] = {
        method: {} for method in methods_of(rows, config)
    }
    for row in rows:
        if row.round_index >= 1 and row.method in outcomes:
            outcomes[row.method][row.round_index, row.domain_id] = row
    later = ledger.filter(pc.field("round_index") >= 1)
    spent = payload_by(later, "method", "up")
    down: dict[str, dict[Target, int]] = defaultdict(dict)
    sums = payload_by(later, "method", "round_index", "domain_id", "up")
    for (method, round_index, domain_id, up), num_bytes in sums.items():
        if not up:
            down[method][round_index, domain_id] = num_bytes
    targets = sorted({target for known in outcomes.values() for target in known})
    reference = finished_accuracies(rows, LABEL_ONLY)
    summaries = []
    for method, results in outcomes.items():
        finished = [results[key] for key in targets if key in results and is_finished(results[key])]
        f1 = [row.macro_f1 for row in finished if row.macro_f1 is not None]
        precisions = [row.mean_average_precision for row in finished]
        errors = [row.mean_absolute_error for row in finished]
        accuracies = finished_accuracies(finished, method)
        values = list(accuracies.values())
        worst = min(accuracies, key=lambda key: (accuracies[key], key[1]), default=None)
        gains = [] if method == LABEL_ONLY else [g.gain for g in _gains(accuracies, reference)]
        seconds = [row.compute_s for row in results.values() if row.compute_s is not None]
        memory = [r.peak_memory_bytes for r in results.values() if r.peak_memory_bytes is not None]
        summaries.append(
            MethodSummary(
                method=method,
                wanted=len(targets),
                finished=len(finished),
                failed=tuple(
                    key[1] for key in targets if key in results and not is_finished(results[key])
                ),
                missing=tuple(key[1] for key in targets if key not in results),
                accuracy_mean=mean_or_none(values),
                accuracy_interval=share_interval(mean_interval(values)),
                worst_accuracy=accuracies[worst] if worst is not None else None,
                worst_domain=worst[1] if worst is not None else None,
                gain_mean=mean_or_none(gains),
                gain_interval=mean_interval(gains),
                gain_pairs=len(gains),
                macro_f1_mean=mean_or_none(f1),
                bytes_up=spent.get((method, UP), 0),
                bytes_down=spent.get((method, DOWN), 0),
                ship_all_share=_ship_all_share(method, targets, outcomes, down),
                device_s_total=math.fsum(seconds),
                device_s_mean=mean_or_none(seconds),
                peak_memory_bytes=max(memory, default=None),
                peers=_peers(rows) if method == config.method else PeerSummary(),
                output=output_of(rows),
                mean_average_precision_mean=mean_or_none([v for v in precisions if v is not None]),
                mean_absolute_error_mean=mean_or_none([v for v in errors if v is not None]),
            )
        )
    return tuple(summaries)


def output_of(rows: Iterable[ResultRow]) -> OutputKind:
    """The kind of the output of a run's rows."""
    return next((row.output for row in rows if row.output != "classes"), "classes")


def _peers(rows: Sequence[ResultRow]) -> PeerSummary:
    probed = [row for row in rows if row.peers_probed]
    return PeerSummary(
        models=len(probed),
        probed=sum(row.peers_probed or 0 for row in probed),
        chosen=sum(row.peers_chose or 0 for row in probed),
        rejected=sum(row.peers_rejected or 0 for row in probed),
    )


def summarise_rounds(
    rows: Sequence[ResultRow], config: ExpansionConfig
) -> tuple[RoundSummary, ...]:
    """Summarise each method by round: methods in their order, rounds rising."""
    targets: dict[int, set[str]] = defaultdict(set)
    for row in rows:
        if row.round_index >= 1 and not row.is_growth:
            targets[row.round_index].add(row.domain_id)
    summaries = []
    for method in methods_of(rows, config):
        accuracies = finished_accuracies(rows, method)
        for round_index in sorted(targets):
            values = [value for target, value in accuracies.items() if target[0] == round_index]
            summaries.append(
                RoundSummary(
                    method=method,
                    round_index=round_index,
                    wanted=len(targets[round_index]),
                    finished=len(values),
                    accuracy_mean=mean_or_none(values),
                    accuracy_interval=share_interval(mean_interval(values)),
                    output=output_of(rows),
                )
            )
    return tuple(summaries)


def class_times(
    rows: Iterable[ResultRow], method: str, deadline_s: float | None = None
) -> tuple[ClassTimes, ...]:
    """Times by device class, in order of its name; empty where no target was simulated."""
    groups: dict[str, list[ResultRow]] = defaultdict(list)
    for row in rows:
        if row.round_index >= 1 and row.method == method and row.simulated_s is not None:
            groups[row.device_class or "unknown"].append(row)
    return tuple(
        ClassTimes(
            device_class=name,
            targets=len(group),
            measured_compute_s=_percentiles(row.compute_s for row in group),
            simulated_compute_s=_percentiles(row.simulated_compute_s for row in group),
            simulated_round_s=_percentiles(row.simulated_s for row in group),
            late=None
            if deadline_s is None
            else sum((row.simulated_s or 0.0) > deadline_s for row in group),
        )
        for name, group in sorted(groups.items())
    )


def percentile(ranked: Sequence[float], share: float) -> float:
    """Nearest-rank percentile of rising values: one of them, never a value between two."""
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def _percentiles(values: Iterable[float | None]) -> Percentiles | None:
    ranked = sorted(value for value in values if value is not None)
    if not ranked:
        return None
    half, most, nearly_all = (percentile(ranked, share) for share in PERCENTILES)
    return half, most, nearly_all


def _gains(
    accuracies: Mapping[Target, float], reference: Mapping[Target, float]
) -> tuple[DomainGain, ...]:
    paired = [
        DomainGain(domain_id=key[1], round_index=key[0], gain=accuracy - reference[key])
        for key, accuracy in accuracies.items()
        if key in reference
    ]
    return tuple(sorted(paired, key=lambda item: (item.gain, item.domain_id, item.round_index)))


def _ship_all_share(
    method: str,
    targets: Sequence[Target],
    outcomes: Mapping[str, Mapping[Target, ResultRow]],
    down: Mapping[str, Mapping[Target, int]],
) -> float | None:
    if not outcomes.get(SHIP_ALL):
        return None
    # A target that failed half way would make its method look cheap.
    broken = {
        key
        for key in targets
        for compared in (method, SHIP_ALL)
        if key not in outcomes[compared] or not is_finished(outcomes[compared][key])
    }
    whole, own = (
        sum(num_bytes for key, num_bytes in down.get(name, {}).items() if key not in broken)
        for name in (SHIP_ALL, method)
    )
    return own / whole if whole else None
