"""A run's figures, round by round, to trackers that people already watch.

A tracker is a guest: what goes wrong with one is told and never ends a run.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from graft.core.config import ExpansionConfig, config_to_dict
from graft.core.ledger import ledger_entries, ledger_table, total_bytes
from graft.core.ports import Tracker
from graft.core.records import LedgerEntry
from graft.core.results import ResultRow
from graft.methods import INITIAL
from graft.report.run import RunRecord
from graft.report.summary import is_finished, mean_or_none, summarise
from graft_server.round_loop import OnRound

log = logging.getLogger("graft")


def round_figures(
    rows: Sequence[ResultRow], entries: Sequence[LedgerEntry], config: ExpansionConfig
) -> dict[str, float]:
    """One round's figures by ``<method>/<what>``; shares of 1, payload bytes, device seconds.

    What nobody reached has no figure. The initial domains' round has theirs alone.
    """
    figures: dict[str, float | None] = {
        "run/payload_bytes": float(total_bytes(entries)),
        "run/failed": float(sum(row.error is not None for row in rows)),
    }
    initial_domains = [row for row in rows if row.method == INITIAL and is_finished(row)]
    figures["initial domain/accuracy"] = mean_or_none(
        [row.accuracy or 0.0 for row in initial_domains]
    )
    targets = [row for row in rows if row.round_index >= 1]
    for each in summarise(targets, ledger_table(entries), config) if targets else ():
        figures |= {
            f"{each.method}/accuracy": each.accuracy_mean,
            f"{each.method}/macro_f1": each.macro_f1_mean,
            f"{each.method}/gain_over_label_only": each.gain_mean,
            f"{each.method}/worst_accuracy": each.worst_accuracy,
            f"{each.method}/finished": float(each.finished),
            f"{each.method}/payload_bytes_up": float(each.bytes_up),
            f"{each.method}/payload_bytes_down": float(each.bytes_down),
            f"{each.method}/device_s": each.device_s_total,
        }
    return {name: value for name, value in figures.items() if value is not None}


@contextmanager
def tracked(trackers: Sequence[Tracker], run: str, config: ExpansionConfig) -> Iterator[OnRound]:
    """Tell every tracker of a run as it goes; what it yields is told each finished round."""
    awake = list(trackers)

    def tell(what: Callable[[Tracker], None]) -> None:
        for tracker in list(awake):
            try:
                what(tracker)
            except Exception as error:
                awake.remove(tracker)
                log.warning("%s: %s: no more figures go there", type(tracker).__name__, error)

    def on_round(index: int, rows: Sequence[ResultRow], entries: Sequence[LedgerEntry]) -> None:
        if awake:
            figures = round_figures(rows, entries, config)
            tell(lambda tracker: tracker.log(figures, index))

    with ExitStack() as stack:
        tell(lambda tracker: tracker.begin(run, flat_settings(config)))
        failed = True
        stack.callback(lambda: tell(lambda tracker: tracker.close(failed=failed)))
        yield on_round
        failed = False


def track_record(record: RunRecord, trackers: Sequence[Tracker]) -> None:
    """Tell trackers of a run that is over, from what it left behind."""
    with tracked(trackers, str(record.run["id"]), record.config) as on_round:
        for index in sorted({row.round_index for row in record.rows}):
            on_round(
                index,
                [row for row in record.rows if row.round_index == index],
                [entry for entry in ledger_entries(record.ledger) if entry.round_index == index],
            )


def flat_settings(config: ExpansionConfig) -> dict[str, str]:
    """Every key of the configuration, dotted, and its value as JSON (texts as they are)."""

    def walk(prefix: str, table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
        for key, value in table.items():
            if isinstance(value, Mapping):
                yield from walk(f"{prefix}{key}.", value)
            else:
                yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)

    return dict(walk("", config_to_dict(config)))
