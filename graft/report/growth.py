"""What a run's growth rounds did to old outputs, by the way of keeping them."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from graft.core.results import GROW, ResultRow
from graft.report.formatting import bytes_text, display_name, percent_text, points_text
from graft.report.run import DOWN, UP, payload_by
from graft.report.summary import is_finished, mean_or_none

HEADINGS: Final = (
    "Way", "Domains", "Old output before", "Old output after", "Change, points", "New output",
    "Payload down", "Payload up",
)  # fmt: skip
NOTE: Final = (
    "Domains that were in the system came back with new classes. Means over the "
    "domains that finished, on their own test rows, as the devices report them. Each domain first "
    "fetches its own model; the first way's models joined the catalogue."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthSummary:
    """One way of keeping old outputs: mean accuracies (0 to 1) over the ``finished`` of ``wanted``
    domains, and payload bytes of all."""

    way: str
    wanted: int
    finished: int
    old_before: float | None
    old_after: float | None
    new: float | None
    bytes_down: int
    bytes_up: int

    @property
    def change(self) -> float | None:
        """How much the old output's accuracy rose."""
        known = self.old_after is not None and self.old_before is not None
        return (self.old_after or 0) - (self.old_before or 0) if known else None


def summarise_growth(rows: Iterable[ResultRow], ledger: pa.Table) -> tuple[GrowthSummary, ...]:
    """Each way in the order of the one whose models were admitted first; empty without growth."""
    growth = [row for row in rows if row.is_growth]
    spent = payload_by(ledger, "method", "up") if growth else {}
    admitted = {row.method for row in growth if row.model_id is not None}
    summaries = []
    for method in sorted({row.method for row in growth}, key=lambda m: (m not in admitted, m)):
        own = [row for row in growth if row.method == method]
        done = [row for row in own if is_finished(row)]
        before, after, new = (
            mean_or_none([value for row in done if (value := getattr(row, name)) is not None])
            for name in ("old_accuracy_before", "old_accuracy", "new_accuracy")
        )
        summaries.append(
            GrowthSummary(
                way=method.removeprefix(GROW),
                wanted=len(own),
                finished=len(done),
                old_before=before,
                old_after=after,
                new=new,
                bytes_down=spent.get((method, DOWN), 0),
                bytes_up=spent.get((method, UP), 0),
            )
        )
    return tuple(summaries)


def growth_cells(summary: GrowthSummary) -> tuple[str, ...]:
    """One row under ``HEADINGS``."""
    return (
        display_name(GROW + summary.way),
        f"{summary.finished} of {summary.wanted}",
        percent_text(summary.old_before),
        percent_text(summary.old_after),
        points_text(summary.change),
        percent_text(summary.new),
        bytes_text(summary.bytes_down),
        bytes_text(summary.bytes_up),
    )


def growth_dicts(summaries: Iterable[GrowthSummary]) -> list[dict[str, Any]]:
    """Plain values for JSON: bytes are payload, accuracies are shares of 1."""
    return [dataclasses.asdict(each) | {"change": each.change} for each in summaries]
