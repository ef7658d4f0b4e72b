"""A run in numbers: what each method reached, what it cost, and on how many targets that rests.

A target domain is a (round, domain) pair of rounds 1 and later. Accuracies, macro-F1 and gains are
shares of 1. Bytes are payload bytes; seconds are measured on the device.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from graft.core.config import ExpansionConfig
from graft.core.ledger import is_upload, total_bytes
from graft.core.records import LedgerEntry
from graft.core.results import ResultRow
from graft.methods import INITIAL
from graft.report.formatting import LABEL_ONLY, SHIP_ALL

Interval = tuple[float, float]
Target = tuple[int, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodSummary:
    """One method over all target domains.

    ``wanted`` is every target domain of the run, whatever came of it under this method;
    ``failed`` names those with an error, ``missing`` those without any row. Means, ``worst_*``
    and intervals are over the ``finished`` ones alone, and None where there are none (an
    interval needs two). ``gain_*`` pairs each target domain with itself under label-only, over the
    ``gain_pairs`` that finished both. ``bytes_*`` and ``device_s_total`` include what failed
    target domains spent. ``ship_all_share`` is this method's bytes down over ship-all's, without
    the target domains that either did not finish; None where ship-all was not run.
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

    @property
    def complete(self) -> bool:
        return self.finished == self.wanted

    @property
    def count_label(self) -> str:
        """What every figure of an incomplete method must carry, e.g. "58 of 60"."""
        return f"{self.finished} of {self.wanted}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundSummary:
    """One method in one round (1 and later): accuracy over the target domains that finished."""

    method: str
    round_index: int
    wanted: int
    finished: int
    accuracy_mean: float | None
    accuracy_interval: Interval | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainGain:
    """One target domain's accuracy under a method minus its own under label-only."""

    domain_id: str
    round_index: int
    gain: float


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


def methods_of(rows: Iterable[ResultRow], config: ExpansionConfig) -> tuple[str, ...]:
    """The configured methods in their order, then any other that the rows hold."""
    known = config.methods
    others = {row.method for row in rows if row.round_index >= 1} - {*known, INITIAL}
    return (*known, *sorted(others))


def is_finished(row: ResultRow) -> bool:
    """Whether the row has an accuracy to count; a NaN is none."""
    return row.error is None and row.accuracy is not None and math.isfinite(row.accuracy)


def finished_accuracies(rows: Iterable[ResultRow], method: str) -> dict[Target, float]:
    """Accuracy of each target domain that finished ``method``."""
    return {
        (row.round_index, row.domain_id): row.accuracy
        for row in rows
        if row.round_index >= 1
        and row.method == method
        and is_finished(row)
        and row.accuracy is not None
    }


def domain_gains(rows: Sequence[ResultRow], method: str) -> tuple[DomainGain, ...]:
    """Gains over label-only, lowest first, of the target domains that finished both."""
    return _gains(finished_accuracies(rows, method), finished_accuracies(rows, LABEL_ONLY))


def summarise(
    rows: Sequence[ResultRow], entries: Sequence[LedgerEntry], config: ExpansionConfig
) -> tuple[MethodSummary, ...]:
    """A summary per method, the main method first, over rounds 1 and later."""
    methods = methods_of(rows, config)
    rows_of: dict[str, dict[Target, ResultRow]] = {method: {} for method in methods}
    charged: dict[str, list[LedgerEntry]] = {method: [] for method in methods}
    for row in rows:
        if row.round_index >= 1 and row.method in rows_of:
            rows_of[row.method][row.round_index, row.domain_id] = row
    for entry in entries:
        if entry.round_index >= 1 and entry.method in charged:
            charged[entry.method].append(entry)
    targets = sorted({target for known in rows_of.values() for target in known})
    reference = finished_accuracies(rows, LABEL_ONLY)
    return tuple(
        _summarise_method(method, targets, rows_of, charged, reference) for method in methods
    )


def summarise_rounds(
    rows: Sequence[ResultRow], config: ExpansionConfig
) -> tuple[RoundSummary, ...]:
    """A summary per method and round, methods in their order, rounds rising."""
    targets = {(row.round_index, row.domain_id) for row in rows if row.round_index >= 1}
    summaries = []
    for method in methods_of(rows, config):
        accuracies = finished_accuracies(rows, method)
        for round_index in sorted({round_index for round_index, _ in targets}):
            here = [value for target, value in accuracies.items() if target[0] == round_index]
            summaries.append(
                RoundSummary(
                    method=method,
                    round_index=round_index,
                    wanted=sum(target[0] == round_index for target in targets),
                    finished=len(here),
                    accuracy_mean=mean_or_none(here),
                    accuracy_interval=mean_interval(here),
                )
            )
    return tuple(summaries)


def _gains(
    accuracies: Mapping[Target, float], reference: Mapping[Target, float]
) -> tuple[DomainGain, ...]:
    paired = [
        DomainGain(domain_id=key[1], round_index=key[0], gain=accuracy - reference[key])
        for key, accuracy in accuracies.items()
        if key in reference
    ]
    return tuple(sorted(paired, key=lambda item: (item.gain, item.domain_id, item.round_index)))


def _summarise_method(
    method: str,
    targets: Sequence[Target],
    rows_of: Mapping[str, Mapping[Target, ResultRow]],
    charged: Mapping[str, Sequence[LedgerEntry]],
    reference: Mapping[Target, float],
) -> MethodSummary:
    rows = rows_of[method]
    finished = [rows[key] for key in targets if key in rows and is_finished(rows[key])]
    accuracies = finished_accuracies(finished, method)
    values = list(accuracies.values())
    worst = min(accuracies, key=lambda key: (accuracies[key], key[1]), default=None)
    gains = [item.gain for item in _gains(accuracies, reference)] if method != LABEL_ONLY else []
    seconds = [row.compute_s for row in rows.values() if row.compute_s is not None]
    return MethodSummary(
        method=method,
        wanted=len(targets),
        finished=len(finished),
        failed=tuple(key[1] for key in targets if key in rows and not is_finished(rows[key])),
        missing=tuple(key[1] for key in targets if key not in rows),
        accuracy_mean=mean_or_none(values),
        accuracy_interval=mean_interval(values),
        worst_accuracy=accuracies[worst] if worst is not None else None,
        worst_domain=worst[1] if worst is not None else None,
        gain_mean=mean_or_none(gains),
        gain_interval=mean_interval(gains),
        gain_pairs=len(gains),
        macro_f1_mean=mean_or_none([row.macro_f1 for row in finished if row.macro_f1 is not None]),
        bytes_up=total_bytes(charged[method], is_upload),
        bytes_down=total_bytes(charged[method], lambda entry: not is_upload(entry)),
        ship_all_share=_ship_all_share(method, targets, rows_of, charged),
        device_s_total=math.fsum(seconds),
        device_s_mean=mean_or_none(seconds),
        peak_memory_bytes=max(
            (row.peak_memory_bytes for row in rows.values() if row.peak_memory_bytes is not None),
            default=None,
        ),
    )


def _ship_all_share(
    method: str,
    targets: Sequence[Target],
    rows_of: Mapping[str, Mapping[Target, ResultRow]],
    charged: Mapping[str, Sequence[LedgerEntry]],
) -> float | None:
    if not rows_of.get(SHIP_ALL):
        return None
    # A target domain that broke off half way would make its method look cheap.
    broken = {
        key
        for key in targets
        for compared in (method, SHIP_ALL)
        if key not in rows_of[compared] or not is_finished(rows_of[compared][key])
    }

    def counted(entry: LedgerEntry) -> bool:
        return not is_upload(entry) and (entry.round_index, entry.domain_id) not in broken

    whole = total_bytes(charged[SHIP_ALL], counted)
    return total_bytes(charged[method], counted) / whole if whole else None
