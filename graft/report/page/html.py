"""The one-file HTML report of a run: no network, every name escaped or read as text.

Summary and figures are drawn here; a small script draws the table of domains and a domain's own
view from the columns in the page, row by row as they are looked at.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources

from graft.core.files import AnyPath, replace_file
from graft.report.class_times import CLASS_CAPTION, CLASS_HEADINGS, class_cells, class_times
from graft.report.figures.accuracy import accuracy_per_round, domain_gains_figure
from graft.report.figures.canvas import NARROW, WIDE, Canvas
from graft.report.figures.pareto import accuracy_against_bytes
from graft.report.figures.traffic import bytes_by_phase, bytes_by_round, time_by_device_class
from graft.report.figures.transfer_graph import transfer_figure, transfer_words, transfers_by_round
from graft.report.formatting import (
    NONE,
    NOT_RUN,
    bytes_text,
    display_name,
    percent_text,
    points_text,
)
from graft.report.page.data import domain_columns, script_json
from graft.report.page.sections import details, failures, ledger_totals, method_table, plain_table
from graft.report.page.style import STYLE
from graft.report.run import RunRecord, read_run
from graft.report.summary import MethodSummary, summarise, summarise_rounds
from graft.report.text import cost_words, failed_words, failure_lines, gained_words, main_gains

REPORT_NAME = "report.html"
_CONTENTS = (
    '<nav aria-label="Contents"><a href="#summary">Summary</a><a href="#figures">Figures</a>'
    '<a href="#methods">Methods</a><a href="#teaching">Who taught whom</a>'
    '<a href="#domains">Domains</a><a href="#settings">Settings</a></nav>'
)
_DOMAINS = (
    '<section class="card" id="domains" tabindex="-1"><h2>Every domain</h2>'
    '<p class="soft">A name opens the domain\'s own view: its sources, whom it taught, what each '
    "method reached and spent on it. Bytes are payload; time is simulated where the run simulated "
    "it, else measured.</p>"
    '<div id="domain-table"></div><noscript>This table and the views of single domains are drawn '
    "by the page's own script.</noscript></section>"
)


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
    figures = _figures(run, summaries)
    body = [
        f"<h1>Expansion report: {escape(name)}</h1>",
        f'<p class="soft">{escape(_run_line(run))}</p>',
        _CONTENTS,
        _status_banner(run),
        _key_figures(summaries[0]),
        _words(run, summaries),
        *figures[:3],
        method_table(summaries),
        *figures[3:5],
        _distillation_weight(run),
        *figures[5:],
        _class_times(run),
        _DOMAINS,
        failures(run),
        ledger_totals(run),
        details(run),
    ]
    return page_of(
        f"graft: {name}",
        f'<main><div id="overview">{chr(10).join(part for part in body if part)}</div>'
        '<div id="domain" hidden></div></main>\n'
        f'<script type="application/json" id="data">{script_json(domain_columns(run))}</script>\n'
        f"<script>{_script()}</script>",
    )


def page_of(title: str, body: str) -> str:
    """A whole page that may load nothing: its policy refuses every address."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>{body}</body></html>\n"
    )


def _script() -> str:
    return resources.files("graft.report.page").joinpath("page.js").read_text("utf-8")


def _distillation_weight(run: RunRecord) -> str:
    tasks = transfers_by_round(run.rows, run.config.method)
    domains = Counter(index for index, _ in {(r.round_index, r.domain_id) for r in run.rows})
    caption = (
        "Each point is a round with the number of domains that joined in it. An arc runs from the "
        "round that sources joined in to the one they taught in, as thick as they taught often; "
        "blue where targets of earlier rounds teach. A domain's own view shows its sources and "
        "whom it taught."
    )
    figure = ""
    if tasks:
        figure = figure_html(lambda canvas: transfer_figure(tasks, domains, canvas), caption)
    return (
        '<section class="card" id="teaching"><h2>Who taught whom</h2>'
        f"<p>{escape(transfer_words(tasks))}</p>{figure}"
        '<div id="teachers"></div></section>'
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
        (percent_text(main.accuracy_mean), f"mean accuracy, {main.count_label} target domains"),
        (gain, f"over label-only, {main.gain_pairs} paired"),
        (bytes_text(main.bytes_down), "payload down, all target domains"),
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
    return f'<div class="card words" id="summary">{parts}</div>'


def _figures(run: RunRecord, summaries: Sequence[MethodSummary]) -> list[str]:
    main = run.config.method
    name = display_name(main)
    rounds = summarise_rounds(run.rows, run.config)
    gains = main_gains(run)
    figures: list[tuple[str, str, Callable[[Canvas], str]]] = [
        (
            "Accuracy per round",
            "Mean over the targets of each round that finished, with the 95 % interval of the "
            "mean. Rounds hold different target domains.",
            lambda canvas: accuracy_per_round(rounds, canvas),
        ),
        (
            "Accuracy against bytes",
            "Payload bytes down that each method was charged. Ringed: the Pareto front, where no "
            "complete method reaches more for as few bytes; the all-labels reference, which learns "
            "from labels that target domains do not have, is left out of it.",
            lambda canvas: accuracy_against_bytes(summaries, canvas),
        ),
        (
            "Bytes by phase",
            "Payload bytes of rounds 1 and later by phase, down to the target domains and up from "
            "them. The system's own messages are charged to no method.",
            lambda canvas: bytes_by_phase(run.entries, main, canvas),
        ),
        (
            "Bytes per round",
            f"Payload bytes of {name} in each round, both ways, with the system's own messages.",
            lambda canvas: bytes_by_round(run.entries, main, canvas),
        ),
        (
            "Per-domain gain over label-only",
            f"Accuracy of {name} minus that of label-only, for each target that finished both.",
            lambda canvas: domain_gains_figure(gains, canvas),
        ),
        (
            "Time per device class",
            f"Measured seconds of {name} on the machine that ran each target domain; one dot a "
            "target domain, at most 400 a class by rank, marks at p50 (thick), p95 and p99.",
            lambda canvas: time_by_device_class(run.rows, main, canvas),
        ),
    ]
    return [
        f'<section class="card"{"" if number else " id=figures"}><h2>{escape(heading)}</h2>'
        f"{figure_html(draw, caption)}</section>"
        for number, (heading, caption, draw) in enumerate(figures)
    ]


def figure_html(draw: Callable[[Canvas], str], caption: str) -> str:
    """A figure drawn for wide and for narrow windows, of which a window shows one."""
    return (
        f'<figure><div class="wide">{_inlined(draw(WIDE))}</div>'
        f'<div class="narrow">{_inlined(draw(NARROW))}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _class_times(run: RunRecord) -> str:
    """Empty where nothing was simulated, as in a deployment."""
    times = class_times(run.rows, run.config.method, run.config.network.deadline_s)
    if not times:
        return ""
    table = plain_table(CLASS_HEADINGS, map(class_cells, times), text_columns=())
    return (
        '<section class="card"><h2>Simulated time by device class</h2>'
        f'<p class="soft">{escape(CLASS_CAPTION)}</p>{table}</section>'
    )


def _inlined(svg: str) -> str:
    # Inside HTML the namespaces are known; without them the page holds no address at all.
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)
