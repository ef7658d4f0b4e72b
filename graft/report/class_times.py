"""How long a round takes a target, by device class: what was measured and what was simulated."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from graft.core.results import ResultRow
from graft.report.figures.traffic import percentile
from graft.report.formatting import NONE, seconds_text

# p50, p95 and p99.
Marks = tuple[float, float, float]
_SHARES = (0.5, 0.95, 0.99)

CLASS_HEADINGS = (
    "Device class", "Newcomers", "Measured compute, p50 / p95 / p99",
    "Simulated compute, p50 / p95 / p99", "Simulated round, p50 / p95 / p99", "Late (simulated)",
)  # fmt: skip
CLASS_CAPTION = (
    "Measured: CPU seconds of the machine that ran the target's device. Simulated: the same work "
    "on its device class, and its whole round with transfers over its link class, probes and "
    "waiting, from the round's start to its report."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassTimes:
    """One device class under one method, over the target domains that finished: nearest-rank
    percentiles in seconds, None where nothing was timed; ``late`` None without a deadline."""

    device_class: str
    targets: int
    measured_compute_s: Marks | None
    simulated_compute_s: Marks | None
    simulated_round_s: Marks | None
    late: int | None


def class_times(
    rows: Iterable[ResultRow], method: str, deadline_s: float | None = None
) -> tuple[ClassTimes, ...]:
    """The classes by name. Empty where no target domain of the method was simulated."""
    groups: dict[str, list[ResultRow]] = defaultdict(list)
    for row in rows:
        if row.round_index >= 1 and row.method == method and row.simulated_s is not None:
            groups[row.device_class or "unknown"].append(row)
    return tuple(_times(name, groups[name], deadline_s) for name in sorted(groups))


def class_cells(times: ClassTimes) -> list[str]:
    """One row under ``CLASS_HEADINGS``."""
    return [
        times.device_class,
        str(times.targets),
        *(
            _marks_text(marks)
            for marks in (
                times.measured_compute_s,
                times.simulated_compute_s,
                times.simulated_round_s,
            )
        ),
        NONE if times.late is None else f"{times.late} of {times.targets}",
    ]


def class_dicts(times: Sequence[ClassTimes]) -> list[dict[str, Any]]:
    """Plain values for JSON; a percentile triple is p50, p95, p99 in seconds."""
    return [dataclasses.asdict(each) for each in times]


def _times(name: str, rows: Sequence[ResultRow], deadline_s: float | None) -> ClassTimes:
    finished_s = [row.simulated_s for row in rows if row.simulated_s is not None]
    return ClassTimes(
        device_class=name,
        targets=len(rows),
        measured_compute_s=_marks(row.compute_s for row in rows),
        simulated_compute_s=_marks(row.simulated_compute_s for row in rows),
        simulated_round_s=_marks(finished_s),
        late=None if deadline_s is None else sum(end_s > deadline_s for end_s in finished_s),
    )


def _marks(values: Iterable[float | None]) -> Marks | None:
    ranked = sorted(value for value in values if value is not None)
    if not ranked:
        return None
    half, most, nearly_all = (percentile(ranked, share) for share in _SHARES)
    return half, most, nearly_all


def _marks_text(marks: Marks | None) -> str:
    return NONE if marks is None else " / ".join(seconds_text(value) for value in marks)
