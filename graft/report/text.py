"""The summary in sentences: what was gained, what it cost, and what failed."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from graft.methods import INITIAL
from graft.report.formatting import (
    SHIP_ALL,
    bytes_text,
    count_text,
    display_name,
    interval_text,
    percent_text,
    points_text,
    seconds_text,
)
from graft.report.run import DOWN, UP, RunRecord, payload_by
from graft.report.summary import DomainGain, MethodSummary, domain_gains


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureLine:
    """One failed domain under one method, as the results state it."""

    round_index: int
    domain_id: str
    method: str
    error: str
    message: str


def gained_words(main: MethodSummary, gains: Sequence[DomainGain]) -> list[str]:
    """Sentences on accuracy and on the gain over label-only, losses included."""
    name = display_name(main.method)
    joined = count_text(main.wanted, "target domain")
    words = [f"{joined} joined; {name} finished on {main.finished}."]
    if main.accuracy_mean is None:
        return [*words, "No target domain finished, so there is no accuracy to report."]
    over = "" if main.complete else f" over the {main.count_label} that finished"
    sentence = f"Mean accuracy is {percent_text(main.accuracy_mean)}{over}"
    if main.accuracy_interval is not None:
        sentence += f" (95 % interval {interval_text(main.accuracy_interval)})"
    words.append(f"{sentence}; the worst domain, {main.worst_domain}, reached "
                 f"{percent_text(main.worst_accuracy)}.")  # fmt: skip
    if main.gain_mean is None:
        return [*words, "Label-only was not run beside it, so no gain can be stated."]
    sentence = (
        f"Against label-only on the same {count_text(main.gain_pairs, 'target domain')} that is "
        f"{points_text(main.gain_mean)} points"
    )
    if main.gain_interval is not None:
        low, high = main.gain_interval
        sentence += f" (95 % interval {interval_text(main.gain_interval, signed=True)})"
        if low <= 0 <= high:
            sentence += ", which does not rule out no difference"
    words.append(sentence + ".")
    lost = [item for item in gains if item.gain < 0]
    if lost:
        words.append(f"{len(lost)} of {len(gains)} did worse than with label-only; "
                     f"the largest loss is {points_text(lost[0].gain)} points "
                     f"({lost[0].domain_id}).")  # fmt: skip
    else:
        words.append("No target domain did worse than with label-only.")
    return words


def cost_words(main: MethodSummary, run: RunRecord) -> list[str]:
    """Sentences on payload bytes, on ship-all, and on measured time and memory."""
    words = [
        f"{bytes_text(main.bytes_down)} of payload went down to the target domains and "
        f"{bytes_text(main.bytes_up)} up."
    ]
    if main.ship_all_share is not None:
        words.append(f"That is {percent_text(main.ship_all_share)} of the payload bytes down "
                     "that ship-all was charged in this run.")  # fmt: skip
    elif main.method != SHIP_ALL:
        words.append("Ship-all was not run, so no share of its bytes can be stated.")
    own = run.ledger.filter((pc.field("method") == "") & (pc.field("round_index") >= 1))
    if len(own):
        spent = payload_by(own, "up")
        words.append(
            f"The system's own messages, charged to no method, added "
            f"{bytes_text(spent.get((DOWN,), 0))} of payload down and "
            f"{bytes_text(spent.get((UP,), 0))} up."
        )
    if main.device_s_mean is not None:
        words.append(f"Measured device time is {seconds_text(main.device_s_total)} in all, "
                     f"{seconds_text(main.device_s_mean)} per target domain.")  # fmt: skip
    if main.peak_memory_bytes is not None:
        words.append(
            f"Training a model took at most {bytes_text(main.peak_memory_bytes)} of memory, "
            "counted from networks, activations and sources."
        )
    return words


def failed_words(summaries: Sequence[MethodSummary], run: RunRecord) -> list[str]:
    """A sentence for each method that is incomplete, or one that says that nothing failed."""
    words = []
    initial_domains = [row.domain_id for row in run.rows if row.round_index == 0 and row.error]
    if initial_domains:
        words.append(
            f"{display_name(INITIAL)}: {len(initial_domains)} failed ({_names(initial_domains)})."
        )
    for summary in summaries:
        parts = []
        if summary.failed:
            parts.append(f"{len(summary.failed)} failed ({_names(summary.failed)})")
        if summary.missing:
            parts.append(f"{len(summary.missing)} have no result ({_names(summary.missing)})")
        if parts:
            words.append(f"{display_name(summary.method)}, {summary.count_label} finished: "
                         f"{'; '.join(parts)}.")  # fmt: skip
    return words or ["Nothing failed: every method finished on every target domain."]


def failure_lines(run: RunRecord) -> list[FailureLine]:
    """Every failed row, by round and domain."""
    return [
        FailureLine(
            round_index=row.round_index,
            domain_id=row.domain_id,
            method=row.method,
            error=row.error,
            message=row.error_message or "",
        )
        for row in sorted(run.rows, key=lambda r: (r.round_index, r.domain_id, r.method))
        if row.error is not None
    ]


def main_gains(run: RunRecord) -> tuple[DomainGain, ...]:
    """The main method's gains over label-only, lowest first."""
    return domain_gains(run.rows, run.config.method)


def _names(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more, listed below"
