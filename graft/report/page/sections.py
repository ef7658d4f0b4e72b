"""The tables of a report's page: methods, failures, the ledger, how the run was made."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from graft.core.config import config_to_dict
from graft.core.ledger import is_upload, total_bytes
from graft.core.records import LedgerEntry
from graft.report.figures.traffic import PHASES
from graft.report.formatting import bytes_text, display_name
from graft.report.run import RunRecord
from graft.report.summary import MethodSummary
from graft.report.tables import HEADINGS, notes, table_cells
from graft.report.text import failure_lines

# The rest are found in the table of domains, which draws only what it shows.
_MOST_FAILURES = 200
# As many rounds as a reader goes through: the last ones.
_MOST_ROUNDS = 24


def method_table(summaries: Sequence[MethodSummary]) -> str:
    """Every method of the run side by side, the main one first."""
    kind_of = {"Finished": "", "Worst domain": "text name", "Gain, points": "gain"}
    rows = []
    for number, summary in enumerate(summaries):
        kinds = ["main"] * (number == 0) + ["incomplete"] * (not summary.complete)
        first, *rest = table_cells(summary)
        cells = "".join(
            f'<td class="{kind_of.get(heading, "whole")}">{_cell(cell)}</td>'
            for heading, cell in zip(HEADINGS[1:], rest, strict=True)
        )
        rows.append(
            f'<tr class="{" ".join(kinds)}"><th scope="row">{escape(first)}</th>{cells}</tr>'
        )
    head = "".join(
        f'<th scope="col"{" class=text" if heading == "Worst domain" else ""}>'
        f"{escape(heading)}</th>"
        for heading in HEADINGS
    )
    return (
        '<section class="card" id="methods"><h2>Methods compared</h2>'
        '<div class="scroll" tabindex="0"><table class="wide">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="soft">{escape(notes(summaries))}</p></section>'
    )


def _cell(cell: str) -> str:
    # An interval that must wrap goes to the next line whole; ids may be of any length.
    figure, bracket, rest = cell.partition(" (")
    whole = bracket and len(rest) < 20
    kept = f' <span class="whole">({escape(rest)}</span>' if whole else escape(bracket + rest)
    return escape(figure) + kept


def failures(run: RunRecord) -> str:
    """What failed, by name; empty where nothing did."""
    lines = failure_lines(run)
    if not lines:
        return ""
    count, lines = len(lines), lines[:_MOST_FAILURES]
    rows = [
        [str(x.round_index), x.domain_id, display_name(x.method), x.error, x.message] for x in lines
    ]
    table = plain_table(("Round", "Domain", "Method", "Error", "Message"), rows)
    opened = " open" if count <= 12 else ""
    title = f"Every failure ({count:,})"
    if count > len(lines):
        title = f"The first {len(lines)} of {count:,} failures; the table of domains shows all"
    return (
        f'<section class="card alarm"><details{opened}>'
        f"<summary>{title}</summary>{table}</details></section>"
    )


def ledger_totals(run: RunRecord) -> str:
    """Messages and payload bytes by round and phase."""
    name = display_name(run.config.method)
    by_part: dict[tuple[int, str], list[LedgerEntry]] = defaultdict(list)
    for entry in run.entries:
        by_part[entry.round_index, entry.phase].append(entry)
    rounds = sorted({round_index for round_index, _ in by_part})
    rows = []
    for round_index in rounds[-_MOST_ROUNDS:]:
        for phase in PHASES:
            entries = by_part.get((round_index, phase))
            if not entries:
                continue
            own = [entry for entry in entries if entry.method == run.config.method]
            rows.append(
                [
                    str(round_index), phase, f"{len(entries):,}",
                    str(sum(entry.outcome != "ok" for entry in entries)),
                    *_down_and_up(entries), *_down_and_up(own),
                ]
            )  # fmt: skip
    headings = (
        "Round", "Phase", "Messages", "Not ok", "Payload down", "Payload up",
        f"{name} down", f"{name} up",
    )  # fmt: skip
    total = _down_and_up(run.entries)
    cut = f" Shown: the last {_MOST_ROUNDS} rounds." if len(rounds) > _MOST_ROUNDS else ""
    return (
        '<section class="card"><h2>The ledger by round and phase</h2>'
        f'<p class="soft">Payload bytes of every method and of the system, round 0 included: '
        f"{escape(total[0])} down, {escape(total[1])} up.{escape(cut)}</p>"
        f"{plain_table(headings, rows, text_columns=(1,))}</section>"
    )


def _down_and_up(entries: Sequence[Any]) -> tuple[str, str]:
    down = total_bytes(entries, lambda entry: not is_upload(entry))
    return bytes_text(down), bytes_text(total_bytes(entries, is_upload))


def details(run: RunRecord) -> str:
    """Configuration, world and versions, folded."""
    blocks = (
        ("Configuration", config_to_dict(run.config)),
        ("World", run.world),
        ("Versions", run.versions),
        ("Run", run.run),
    )
    parts = [
        f"<details><summary>{escape(heading)}</summary>"
        f"{plain_table(('Key', 'Value'), flat_rows(table), text_columns=(1,))}</details>"
        for heading, table in blocks
        if table
    ]
    return f'<section class="card" id="settings"><h2>How it was run</h2>{"".join(parts)}</section>'


def flat_rows(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted keys and values as text."""
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            rows.extend(flat_rows(value, f"{prefix}{key}."))
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((prefix + key, shown))
    return rows


def plain_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    text_columns: Sequence[int] = (1, 2, 3, 4),
) -> str:
    """A table of texts; the first column names its row, ``text_columns`` stand left."""

    def mark(column: int, kind: str) -> str:
        return f' class="text {kind}"' if column in text_columns else ""

    head = "".join(
        f'<th scope="col"{mark(column, "")}>{escape(heading)}</th>'
        for column, heading in enumerate(headings)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(
            f"<td{mark(column, 'long')}>{escape(cell)}</td>" for column, cell in enumerate(rest, 1)
        )
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
