"""A device's words are text wherever they are shown: terminal, page, Markdown, metrics."""

import html
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from graft.cli import shared
from graft.core.text import markdown_text, printable
from graft.report.page.render import render
from graft.report.tables import filled, markdown_grid

HOSTILE = ["[/]", "[red]", "\x1b[2J\x1b]0;x\x07", "a\nb", "\r", "|", "`x`", "<script>", "![x](y)",
           "\u202e", "\u2028", "\x00", "\ud800", "{{ 7 * 7 }}", "=cmd()", "# x", "\\", '"', "\x9b2J",
           "$x$", "&lt;", "* x"]  # fmt: skip
words = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=8), max_size=5).map("".join)
QUICK = settings(max_examples=60, deadline=None)


@QUICK
@given(words)
def test_printable_is_one_line_of_printable_text(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


@QUICK
@given(words)
def test_a_terminal_shows_words_as_they_are(text: str) -> None:
    for markup in (True, False):
        stream = io.StringIO()
        console = Console(file=stream, width=10_000, force_terminal=True, color_system=None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shared, "console", console)
            shared.announce(text)
        table = Table("A", "B", show_edge=False, box=None)
        shared.add_texts(table, text, "end")
        filled(table, (), [((text, "end"), "bold" if markup else "")])
        console.print(table)
        lines = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()
        assert all(line.isprintable() for line in lines)
        assert lines[0] == printable(text)
        assert len(lines) == 4
        for line in lines[2:]:
            assert line.strip().startswith(printable(text).strip())
            assert line.strip().endswith("end")


@QUICK
@given(words, words)
def test_a_markdown_table_has_its_own_cells_only(text: str, other: str) -> None:
    grid = markdown_grid(("A", "B"), [(text, other)])
    assert len(grid.splitlines()) == 3
    bare = re.sub(r"\\.", "", grid.splitlines()[-1])
    assert bare.count("|") == 3
    assert not set("<>[]`*_#") & set(bare)
    assert markdown_text(text).isprintable()


@QUICK
@given(words)
def test_a_page_holds_words_as_text(text: str) -> None:
    page = render("base.html.j2", title=text)
    title = page[page.index("<title>") + 7 : page.index("</title>")]
    assert title.isprintable()
    assert not set("<>\"'") & set(title)
    assert html.unescape(title) == printable(text)


@QUICK
@given(words.map(printable))
def test_a_metrics_label_comes_back(text: str) -> None:
    registry = CollectorRegistry()
    Gauge("graft_test", "x", ["device"], registry=registry).labels(text).set(1)
    exposed = generate_latest(registry).decode()
    (family,) = text_string_to_metric_families(exposed)
    (sample,) = family.samples
    assert sample.labels == {"device": text}


def test_facts_of_a_command_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    shared.print_facts({"domain": "a\x1b[2J", "list": ["b\nc"]}, shared.Format.TABLE)
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
