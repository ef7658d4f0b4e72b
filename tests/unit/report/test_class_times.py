"""Percentiles of measured and simulated time by device class, each under its own name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from graft.core.records import LedgerEntry
from graft.core.results import ResultRow
from graft.report.page.report import report_page
from graft.report.run import read_run
from graft.report.summary import class_times
from graft.report.tables import class_dicts

MakeRun = Callable[[Sequence[ResultRow], Sequence[LedgerEntry]], Path]


def targets() -> list[ResultRow]:
    """A hundred phones done after 1, 2, ... 100 seconds, of which they compute a tenth; one
    gateway that failed."""
    phones = [
        ResultRow(
            domain_id=f"d{number}", method="hat", round_index=1, device_class="phone",
            compute_s=number / 1000, simulated_compute_s=number / 10, simulated_s=float(number),
        )
        for number in range(1, 101)
    ]  # fmt: skip
    failed = ResultRow(domain_id="e", method="hat", round_index=1, error="DomainLostError")
    return [*phones, failed, replace(phones[0], method="label-only")]


def test_percentiles_are_by_nearest_rank_and_late_ones_are_counted() -> None:
    (phones,) = class_times(targets(), "hat", deadline_s=90.0)
    assert (phones.device_class, phones.targets, phones.late) == ("phone", 100, 10)
    assert phones.simulated_round_s == (50.0, 95.0, 99.0)
    assert phones.simulated_compute_s == (5.0, 9.5, 9.9)
    assert phones.measured_compute_s == (0.05, 0.095, 0.099)
    assert class_dicts([phones])[0]["simulated_round_s"] == (50.0, 95.0, 99.0)


def test_without_a_deadline_none_is_late() -> None:
    (phones,) = class_times(targets(), "hat")
    assert phones.late is None


def test_a_run_that_was_not_simulated_has_no_such_table(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    assert class_times(rows, "hat") == ()
    assert "Simulated time by device class" not in report_page(read_run(make_run(rows, entries)))


def test_the_page_says_of_each_time_whether_it_was_measured(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    timed = [replace(row, simulated_s=30.0, simulated_compute_s=7.0) for row in rows]
    page = report_page(read_run(make_run(timed, entries)))
    assert "Simulated time by device class" in page
    for heading in ("Measured compute", "Simulated compute", "Simulated round"):
        assert heading in page
