"""The page of several runs."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from graft.core.records import LedgerEntry
from graft.core.results import ResultRow
from graft.errors import RunError
from graft.report.formatting import MINUS
from graft.report.page.comparison import comparison_page
from graft.report.run import read_run

MakeRun = Callable[[Sequence[ResultRow], Sequence[LedgerEntry]], Path]


def test_runs_stand_side_by_side_with_what_differs(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    one = read_run(make_run(rows, entries))
    other = dataclasses.replace(
        one,
        run={**one.run, "id": "<other>", "seed": 1},
        config=dataclasses.replace(one.config, seed=1),
        rows=tuple(row for row in rows if row.method != "average-kd-all"),
    )
    page = comparison_page([one, other])
    assert "2 runs compared" in page
    assert "<other>" not in page
    assert "&lt;other&gt;" in page
    assert page.count("80.0 %") >= 2  # hat's mean of 0.8, 0.9 and 0.7, in both
    assert "not run" in page  # the other has no ship-all
    assert '<th scope="row">seed</th>' in page
    assert '<th scope="row">rounds</th>' not in page  # the same in both
    assert "http" not in page.replace("http-equiv", "")


def test_two_runs_are_compared_on_the_target_domains_of_both(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    one = read_run(make_run(rows, entries))
    worse = {("hat", "c"): 0.2, ("hat", "a"): None}
    changed = [
        dataclasses.replace(row, accuracy=worse.get((row.method, row.domain_id), row.accuracy))
        for row in rows
    ]
    page = comparison_page([one, dataclasses.replace(one, rows=tuple(changed))])
    assert "On 2 target domains" in page
    assert "0 better, 1 worse" in page
    assert re.search(
        rf">c \(round \d\)</th><td>70.0 %</td><td>20.0 %</td><td>{MINUS}50.0</td>", page
    )


def test_runs_of_one_name_are_numbered(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    run = read_run(make_run(rows, entries))
    page = comparison_page([run, run])
    assert "small (1)" in page
    assert "small (2)" in page
    assert "None: the same configuration" in page


def test_one_run_is_no_comparison(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    with pytest.raises(RunError, match="at least 2"):
        comparison_page([read_run(make_run(rows, entries))])
