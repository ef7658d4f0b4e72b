"""Laws of the tables and of the one-file page."""

import dataclasses
import html
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from graft.core.config import ExpansionConfig
from graft.core.records import LedgerEntry
from graft.core.results import ResultRow
from graft.errors import ExtraMissingError, RunError
from graft.report.figures.accuracy import domain_gains_figure
from graft.report.figures.canvas import NARROW, VARIABLES, draw_svg, mark
from graft.report.formatting import MINUS
from graft.report.page.report import report_page, write_report
from graft.report.run import read_run
from graft.report.summary import DomainGain, summarise
from graft.report.tables import markdown_table, rich_table, summary_dict

MakeRun = Callable[[Sequence[ResultRow], Sequence[LedgerEntry]], Path]
Fail = Callable[[Sequence[ResultRow], str, str], list[ResultRow]]
HOSTILE = '<script>alert("$x$")</script>&'
VOID = {"meta", "br", "link", "img", "input"}


class Outline(HTMLParser):
    """Collects tags, ids and attributes that load something, and checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
                self.loads.append(value or "")


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed


def page_columns(page: str) -> dict[str, Any]:
    """The columns that the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    columns: dict[str, Any] = json.loads(found[1])
    return columns


def printed(table: Table) -> str:
    stream = io.StringIO()
    Console(file=stream, width=220).print(table)
    return stream.getvalue()


def test_the_page_loads_nothing_and_refers_only_to_itself(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    page = write_report(make_run(rows, entries)).read_text("utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    found = outline(page)
    assert not {"link", "iframe", "img", "object"} & set(found.tags)
    # The data and the page's own script; its policy refuses to load another.
    assert found.tags.count("script") == 2
    assert "default-src 'none'" in page
    assert all(load.startswith("#") for load in found.loads)
    assert re.findall(r"url\((?!#)", page) == []
    # Ten figures share the page: each id is its own, and each reference has one.
    assert len(found.ids) == len(set(found.ids))
    wanted = {load[1:] for load in found.loads} | set(re.findall(r"url\(#([^)]*)\)", page))
    assert wanted <= set(found.ids)


def test_the_page_says_what_was_gained_spent_and_lost(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry], with_failure: Fail
) -> None:
    page = report_page(read_run(make_run(rows, entries)))
    for heading in (
        "Accuracy per round",
        "Accuracy against bytes",
        "Bytes by phase",
        "Per-domain gain over label-only",
        "Time per device class",
    ):
        assert heading in page
    assert "Mean accuracy is 80.0 %" in page
    assert "750 B of payload went down" in page
    assert "That is 25.0 % of the payload bytes down" in page
    assert "1 of 3 did worse than with label-only" in page
    assert "Nothing failed" in page

    page = report_page(read_run(make_run(with_failure(rows, "c", "hat"), entries)))
    assert "This run did not complete" in page
    assert "HaT-style, 2 of 3 finished: 1 failed (c)." in page
    assert "over the 2 of 3 that finished" in page
    assert "DomainEmptyError" in page
    assert "got 0 rows" in page


def test_a_hostile_domain_id_is_only_ever_text(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    renamed = [
        dataclasses.replace(
            row,
            domain_id=HOSTILE,
            device_class=HOSTILE,
            error=HOSTILE if row.method == "average-kd-all" else None,
            error_message=HOSTILE,
        )
        if row.domain_id == "c"
        else row
        for row in rows
    ]
    page = report_page(read_run(make_run(renamed, entries)))
    assert outline(page).tags.count("script") == 2
    assert "&lt;script&gt;alert" in page
    assert HOSTILE not in page
    assert HOSTILE in page_columns(page)["domains"]


def test_the_same_run_gives_the_same_page(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    folder = make_run(rows, entries)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert sorted(path.name for path in folder.iterdir()) == [
        "ledger.parquet",
        "report.html",
        "results.parquet",
        "run.toml",
    ]


def test_a_run_with_nothing_finished_still_has_a_page(
    make_run: MakeRun, rows: list[ResultRow], with_failure: Fail
) -> None:
    failed = rows
    for row in rows:
        if row.round_index >= 1:
            failed = with_failure(failed, row.domain_id, row.method)
    page = report_page(read_run(make_run(failed, [])))
    outline(page)
    assert "No target domain finished" in page
    outline(report_page(read_run(make_run([], []))))


def test_without_jinja_the_error_names_the_extra(
    make_run: MakeRun,
    rows: list[ResultRow],
    entries: list[LedgerEntry],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_run(rows, entries)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ExtraMissingError, match=r"jinja2.*graft-fl\[report\]"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_drawing_leaves_matplotlibs_settings_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    domain_gains_figure([DomainGain(domain_id="a", round_index=1, gain=0.1)], NARROW)
    assert dict(matplotlib.rcParams) == before


def test_a_figure_of_1000_domains_names_the_lowest_and_stays_small() -> None:
    gains = [
        DomainGain(domain_id=f"d{number}", round_index=1, gain=number / 1000 - 0.2)
        for number in range(1000)
    ]
    svg = domain_gains_figure(gains)
    assert f"Lowest: d0 {MINUS}20.0, d1 {MINUS}19.9" in " ".join(svg.split())
    assert len(svg) < 300_000


def test_every_colour_of_a_figure_follows_the_page() -> None:
    svg = domain_gains_figure([DomainGain(domain_id="a", round_index=1, gain=-0.1)])
    colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg))
    assert colours == set()
    assert set(re.findall(r"var\((--\w+), ", svg)) <= set(VARIABLES.values())


def test_terminal_markdown_and_json_tell_the_same_story(
    rows: list[ResultRow], ledger: pa.Table, config: ExpansionConfig
) -> None:
    summaries = summarise(rows, ledger, config)
    terminal, markdown = printed(rich_table(summaries)), markdown_table(summaries)
    for words in ("HaT-style", "80.0 %", "750 B", "25.0 %", "70.0 % (c)"):
        assert words in terminal
        assert words in markdown
    plain = json.loads(json.dumps(summary_dict(summaries)))
    assert plain["methods"][0]["bytes_down"] == 750
    assert plain["methods"][0]["worst_domain"] == "c"


def test_markup_in_an_id_is_text_in_every_table(
    rows: list[ResultRow], ledger: pa.Table, config: ExpansionConfig
) -> None:
    renamed = [
        dataclasses.replace(row, domain_id="[red]|x") if row.domain_id == "c" else row
        for row in rows
    ]
    summaries = summarise(renamed, ledger, config)
    assert "[red]|x" in printed(rich_table(summaries))
    assert "\\[red\\]\\|x" in markdown_table(summaries)


def test_a_folder_that_is_no_run_is_refused_by_name(
    tmp_path: Path, make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    with pytest.raises(RunError, match=r"run\.toml"):
        read_run(tmp_path)
    folder = make_run(rows, entries)
    (folder / "ledger.parquet").unlink()
    with pytest.raises(RunError, match="ledger"):
        read_run(folder)
    (folder / "run.toml").write_text("[run]\n[config]\nnonsense = 1\n")
    with pytest.raises(RunError, match="nonsense"):
        read_run(folder)


def test_the_page_marks_what_each_method_drew_and_lists_the_most_accurate_first(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    page = report_page(read_run(make_run(rows, entries)))
    boxes = re.findall(r'<input type="checkbox" checked value="([^"]+)">', page)
    assert set(boxes) <= set(re.findall(r'data-method="([^"]+)"', page))
    listed = re.findall(r'<tr data-method="([^"]+)"', page)
    assert listed == boxes
    accuracy = {
        each.method: each.accuracy_mean or 0.0
        for each in summarise(rows, read_run(make_run(rows, entries)).ledger, ExpansionConfig())
    }
    reached = [accuracy[method] for method in listed if method in accuracy]
    assert reached == sorted(reached, reverse=True)
    assert "HaT-style, round 1: " in page


def test_a_hostile_method_is_no_markup_where_a_figure_marks_it() -> None:
    def draw(figure: Figure) -> None:
        mark(figure.text(0, 0, "x"), HOSTILE, HOSTILE)

    svg = draw_svg(draw, canvas=NARROW, height_px=100, title="t")
    assert "<script" not in svg
    assert svg.count(html.escape(HOSTILE)) == 2


def test_what_a_budget_left_out_is_on_the_page(
    make_run: MakeRun, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    words = "2 of 5 sources: down_bytes <b>"
    run = read_run(make_run(rows, entries))
    assert "Left out to stay" not in report_page(run)
    changed = [
        dataclasses.replace(row, left_out=[words]) if row.method == "hat" else row for row in rows
    ]
    page = report_page(dataclasses.replace(run, rows=tuple(changed)))
    assert f'<th scope="row">{html.escape(words)}</th><td>' in page
