"""What the page holds of each domain, read back from the page itself."""

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graft.core.records import LedgerEntry
from graft.core.results import ResultRow
from graft.report.figures.transfer_graph import transfer_figure, transfer_words, transfers_by_round
from graft.report.page.data import domain_columns, script_json
from graft.report.page.report import report_page
from graft.report.run import read_run

MakeRun = Callable[[Sequence[ResultRow], Sequence[LedgerEntry]], Path]


def soft_targets(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """a, b and c learned from f, and c from a as well, all under the main method."""
    sources = {"a": ["f"], "b": ["f"], "c": ["f", "a"]}
    return [
        dataclasses.replace(row, source_domains=sources.get(row.domain_id, []))
        if row.method == "hat"
        else row
        for row in rows
    ]


def columns_of(page: str) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page)
    assert found is not None
    columns: dict[str, Any] = json.loads(found[1])
    return columns


def test_every_domain_is_there_with_its_rows_sources_and_bytes(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    data = columns_of(report_page(read_run(make_run(soft_targets(rows), entries))))
    assert data["domains"] == ["a", "b", "c", "f"]
    visits, kept = data["visits"], data["rows"]
    # Initial domain f first, then a and b of round 1, then c of round 2; three methods each but f.
    assert visits["domain"] == [3, 0, 1, 2]
    assert visits["round"] == [0, 1, 1, 2]
    assert len({len(column) for column in kept.values()}) == 1
    assert len(kept["visit"]) == 1 + 3 * 3
    main = [number for number, method in enumerate(kept["method"]) if method == data["main"]]
    assert [kept["accuracy"][number] for number in main] == [8000, 9000, 7000]
    assert [kept["sources"][number] for number in main] == [[3], [3], [0, 3][::-1]]
    # 50 bytes probed and 200 shipped down, 10 reported up; 30 of the profile are the system's.
    number_of = {phase: number for number, phase in enumerate(data["phases"])}
    assert kept["traffic"][main[0]] == [
        number_of["probe"], 50, 0, number_of["ship"], 200, 0, number_of["report"], 0, 10,
    ]  # fmt: skip
    assert visits["system"][1] == [number_of["profile"], 0, 30]
    assert data["methods"][data["labelOnly"]] == "Label only"


def test_a_fusion_is_told_in_thousandths(make_run: MakeRun, rows: list[ResultRow]) -> None:
    told = [
        dataclasses.replace(
            row, mixture=[[1 / 3] * 6], dictionary=[[0, 0, 0, 0.5], [7, 0.25, 1, 1]]
        )
        if row.source_domains
        else row
        for row in soft_targets(rows)
    ]
    kept = domain_columns(read_run(make_run(told, [])))["rows"]
    with_sources = [number for number, sources in enumerate(kept["sources"]) if sources]
    for number in range(len(kept["visit"])):
        wanted = (
            ([333] * 6, [0, 0, 0, 500, 7, 250, 1000, 1000]) if number in with_sources else ([], [])
        )
        assert (kept["mixture"][number], kept["dictionary"][number]) == wanted


def test_what_failed_has_its_error_and_no_accuracy(
    make_run: MakeRun,
    rows: list[ResultRow],
    with_failure: Callable[[Sequence[ResultRow], str, str], list[ResultRow]],
) -> None:
    data = domain_columns(read_run(make_run(with_failure(rows, "c", "hat"), [])))
    (failed,) = (number for number, error in enumerate(data["rows"]["error"]) if error >= 0)
    assert data["rows"]["accuracy"][failed] is None
    assert data["errors"] == ["DomainEmptyError: got 0 rows"]


def test_no_name_ends_the_script_or_is_an_address() -> None:
    names = ["</script><b>", "<!--", "https://example.org", "\u2028"]
    text = script_json({"domains": names})
    assert not {"<", ">", "&"} & set(text)
    assert "://" not in text
    assert json.loads(text) == {"domains": names}


def test_a_page_of_5000_domains_is_small() -> None:
    # 3,000 target domains with two methods and five sources each, and 2,000 initial domains.
    from graft.core.config import ExpansionConfig
    from graft.core.tables import ledger_table
    from graft.report.run import RunRecord

    row = ResultRow(
        domain_id="", method="hat", round_index=0, architecture="cnn", device_class="phone",
        accuracy=0.81234567, macro_f1=0.71234567, num_test=48, num_labelled=12,
        num_unlabelled=100, compute_s=1.23456, peak_memory_bytes=1_234_567, model_id="f" * 64,
        simulated_compute_s=3.21, simulated_s=12.3,
    )  # fmt: skip
    initial_domains = [
        dataclasses.replace(row, domain_id=f"user-{number:06}", method="initial")
        for number in range(2000)
    ]
    targets = [
        dataclasses.replace(
            row,
            domain_id=f"user-{number:06}",
            method=method,
            round_index=1 + number % 4,
            accuracy=number / 10_000,
            source_domains=[f"user-{(number * 7 + at) % 2000:06}" for at in range(5)],
            mixture=[[0.123, 0.234, 0.345, 0.456, 0.567, 0.678]] * 5 if method == "hat" else None,
            dictionary=[[88, 0.123, 0.234, 0.345]] * 25 if method == "hat" else None,
        )
        for number in range(2000, 5000)
        for method in ("hat", "label-only")
    ]
    config = ExpansionConfig(rounds=4, method="hat", comparisons=("label-only",))
    run = RunRecord(run={"id": "big"}, versions={}, world={}, config=config,
                    rows=(*initial_domains, *targets), ledger=ledger_table(()))  # fmt: skip
    page = report_page(run)
    assert len(columns_of(page)["domains"]) == 5000
    assert len(page) < 3_000_000


def test_tasks_are_counted_by_the_rounds_of_source_and_learner(rows: list[ResultRow]) -> None:
    tasks = transfers_by_round(soft_targets(rows), "hat")
    # f to a and b in round 1 and to c in round 2; a, of round 1, to c.
    assert tasks == {(0, 1): 2, (0, 2): 1, (1, 2): 1}
    assert "4 transfers from a source to a target domain; in 25 % of them" in transfer_words(tasks)
    assert transfer_words({}) == "No target domain learned from a source."


def test_a_hundred_rounds_stand_in_groups() -> None:
    tasks = {(source, learner): 1 for learner in range(1, 101) for source in range(learner)}
    svg = transfer_figure(tasks, dict.fromkeys(range(101), 10))
    assert "initial domains" in svg
    assert "rounds 91 to 100" in svg
    assert len(svg) < 120_000
