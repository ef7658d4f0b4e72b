"""The one-file HTML report of a run: no network, no script, every name escaped."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from graft.config import config_to_dict
from graft.files import AnyPath, replace_file
from graft.ledger import is_upload, total_bytes
from graft.report.canvas import NARROW, WIDE, Canvas
from graft.report.class_times import CLASS_CAPTION, CLASS_HEADINGS, class_cells, class_times
from graft.report.figures import accuracy_per_round, domain_gains_figure
from graft.report.page_style import STYLE
from graft.report.pareto import accuracy_against_bytes
from graft.report.prose import (
    cost_words,
    failed_words,
    failure_lines,
    gained_words,
    main_gains,
)
from graft.report.run_folder import RunRecord, read_run
from graft.report.summary import MethodSummary, summarise, summarise_rounds
from graft.report.tables import HEADINGS, notes, table_cells
from graft.report.traffic_figures import PHASES, bytes_by_phase, time_by_device_class
from graft.report.wording import (
    NONE,
    NOT_RUN,
    bytes_text,
    display_name,
    percent_text,
    points_text,
)

REPORT_NAME = "report.html"


def write_report(run_folder: AnyPath) -> AnyPath:
    """Write ``report.html`` into the run folder, atomically, and give its path.

    Raises RunError where the folder is not a run's.
    """
    page = report_page(read_run(run_folder))
    path = run_folder / REPORT_NAME
    replace_file(path, page.encode())
    return path


def report_page(run: RunRecord) -> str:
    """The whole page as text, the same for the same run."""
    summaries = summarise(run.rows, run.entries, run.config)
    name = str(run.run.get("id", "run"))
    body = [
        f"<h1>Expansion report: {escape(name)}</h1>",
        f'<p class="soft">{escape(_run_line(run))}</p>',
        _status_banner(run),
        _key_figures(summaries[0]),
        _words(run, summaries),
        *_figures(run, summaries),
        _class_times(run),
        _method_table(summaries),
        _failures(run),
        _ledger_totals(run),
        _details(run),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>graft: {escape(name)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(part for part in body if part)}\n</main></body></html>\n"
    )


def _run_line(run: RunRecord) -> str:
    parts = [
        f"world {run.world.get('name', run.config.world.kind)}",
        f"seed {run.run.get('seed', run.config.seed)}",
        f"{run.config.rounds} rounds",
        f"started {run.run.get('started', 'at an unknown time')}",
        f"finished {run.run['finished']}" if "finished" in run.run else "not finished",
    ]
    return " · ".join(parts)


def _status_banner(run: RunRecord) -> str:
    status = str(run.run.get("status", "unknown"))
    if status == "complete":
        return ""
    return (
        '<div class="card alarm" role="status"><h2>This run did not complete</h2>'
        f"<p>Its status is “{escape(status)}”; what follows covers what it finished.</p></div>"
    )


def _key_figures(main: MethodSummary) -> str:
    share = NOT_RUN if main.ship_all_share is None else percent_text(main.ship_all_share)
    gain = NONE if main.gain_mean is None else f"{points_text(main.gain_mean)} pts"
    keys = (
        (percent_text(main.accuracy_mean), f"mean accuracy, {main.count_label} newcomers"),
        (gain, f"over label-only, {main.gain_pairs} paired"),
        (bytes_text(main.bytes_down), "payload down, all newcomers"),
        (share, "of ship-all's payload down"),
    )
    cells = "".join(
        f'<div class="key"><b>{escape(figure)}</b><span class="soft">{escape(words)}</span></div>'
        for figure, words in keys
    )
    return f'<div class="keys">{cells}</div>'


def _words(run: RunRecord, summaries: Sequence[MethodSummary]) -> str:
    failed = failed_words(summaries, run)
    alarm = any(not summary.complete for summary in summaries) or bool(failure_lines(run))
    sections = (
        ("What was gained", gained_words(summaries[0], main_gains(run)), ""),
        ("What it cost", cost_words(summaries[0], run), ""),
        ("What failed", failed, ' class="alarm-words"' if alarm else ""),
    )
    parts = "".join(
        f"<section><h2{mark}>{escape(heading)}</h2>"
        + "".join(f"<p>{escape(sentence)}</p>" for sentence in words)
        + "</section>"
        for heading, words, mark in sections
    )
    return f'<div class="card words">{parts}</div>'


def _figures(run: RunRecord, summaries: Sequence[MethodSummary]) -> list[str]:
    main = run.config.method
    name = display_name(main)
    rounds = summarise_rounds(run.rows, run.config)
    gains = main_gains(run)
    figures: list[tuple[str, str, Callable[[Canvas], str]]] = [
        (
            "Accuracy per round",
            "Mean over the newcomers of each round that finished, with the 95 % interval of the "
            "mean. Rounds hold different newcomers.",
            lambda canvas: accuracy_per_round(rounds, canvas),
        ),
        (
            "Accuracy against bytes",
            "Payload bytes down that each method was charged. Ringed: the Pareto front, where no "
            "complete method reaches more for as few bytes; the all-labels reference, which learns "
            "from labels that newcomers do not have, is left out of it.",
            lambda canvas: accuracy_against_bytes(summaries, canvas),
        ),
        (
            "Bytes by phase",
            "Payload bytes of rounds 1 and later by phase, down to the newcomers and up from "
            "them. The system's own messages are charged to no method.",
            lambda canvas: bytes_by_phase(run.entries, main, canvas),
        ),
        (
            "Per-domain gain over label-only",
            f"Accuracy of {name} minus that of label-only, for each newcomer that finished both.",
            lambda canvas: domain_gains_figure(gains, canvas),
        ),
        (
            "Time per device class",
            f"Measured seconds of {name} on the machine that ran each newcomer; one dot a "
            "newcomer, marks at p50 (thick), p95 and p99.",
            lambda canvas: time_by_device_class(run.rows, main, canvas),
        ),
    ]
    return [
        f'<section class="card"><h2>{escape(heading)}</h2><figure>'
        f'<div class="wide">{_inlined(draw(WIDE))}</div>'
        f'<div class="narrow">{_inlined(draw(NARROW))}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure></section>"
        for heading, caption, draw in figures
    ]


def _class_times(run: RunRecord) -> str:
    """Empty where nothing was simulated, as in a deployment."""
    times = class_times(run.rows, run.config.method, run.config.network.deadline_s)
    if not times:
        return ""
    table = _plain_table(CLASS_HEADINGS, map(class_cells, times), text_columns=())
    return (
        '<section class="card"><h2>Simulated time by device class</h2>'
        f'<p class="soft">{escape(CLASS_CAPTION)}</p>{table}</section>'
    )


def _inlined(svg: str) -> str:
    # Inside HTML the namespaces are known; without them the page holds no address at all.
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)


def _method_table(summaries: Sequence[MethodSummary]) -> str:
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
        '<section class="card"><h2>Methods compared</h2>'
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


def _failures(run: RunRecord) -> str:
    lines = failure_lines(run)
    if not lines:
        return ""
    rows = [
        [str(x.round_index), x.domain_id, display_name(x.method), x.error, x.message] for x in lines
    ]
    table = _plain_table(("Round", "Domain", "Method", "Error", "Message"), rows)
    opened = " open" if len(lines) <= 12 else ""
    return (
        f'<section class="card alarm"><details{opened}>'
        f"<summary>Every failure ({len(lines)})</summary>{table}</details></section>"
    )


def _ledger_totals(run: RunRecord) -> str:
    name = display_name(run.config.method)
    rows = []
    for round_index in sorted({entry.round_index for entry in run.entries}):
        here = [entry for entry in run.entries if entry.round_index == round_index]
        for phase in PHASES:
            entries = [entry for entry in here if entry.phase == phase]
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
    return (
        '<section class="card"><h2>The ledger by round and phase</h2>'
        f'<p class="soft">Payload bytes of every method and of the system, round 0 included: '
        f"{escape(total[0])} down, {escape(total[1])} up.</p>"
        f"{_plain_table(headings, rows, text_columns=(1,))}</section>"
    )


def _down_and_up(entries: Sequence[Any]) -> tuple[str, str]:
    down = total_bytes(entries, lambda entry: not is_upload(entry))
    return bytes_text(down), bytes_text(total_bytes(entries, is_upload))


def _details(run: RunRecord) -> str:
    blocks = (
        ("Configuration", config_to_dict(run.config)),
        ("World", run.world),
        ("Versions", run.versions),
        ("Run", run.run),
    )
    parts = [
        f"<details><summary>{escape(heading)}</summary>"
        f"{_plain_table(('Key', 'Value'), _flat_rows(table), text_columns=(1,))}</details>"
        for heading, table in blocks
        if table
    ]
    return f'<section class="card"><h2>How it was run</h2>{"".join(parts)}</section>'


def _flat_rows(table: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    rows: list[list[str]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            rows.extend(_flat_rows(value, f"{prefix}{key}."))
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append([prefix + key, shown])
    return rows


def _plain_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    text_columns: Sequence[int] = (1, 2, 3, 4),
) -> str:
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
