"""The one-file HTML report of a run.

The summary and the figures are drawn here; a small script draws the table of domains and a
domain's own view from the columns in the page.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from graft.core.config import config_to_dict
from graft.core.files import AnyPath, replace_file
from graft.report.figures.accuracy import accuracy_per_round, domain_gains_figure
from graft.report.figures.pareto import accuracy_against_bytes
from graft.report.figures.traffic import bytes_by_phase, bytes_by_round, time_by_device_class
from graft.report.figures.transfer_graph import transfer_figure, transfer_words, transfers_by_round
from graft.report.formatting import (
    NONE,
    NOT_RUN,
    PHASES,
    bytes_text,
    display_name,
    percent_text,
    points_text,
)
from graft.report.page.data import domain_columns, script_json
from graft.report.page.render import (
    PageFigure,
    PageTable,
    flat_rows,
    page_figure,
    page_file,
    render,
    safe,
)
from graft.report.run import DOWN, UP, RunRecord, payload_by, read_run
from graft.report.summary import (
    MethodSummary,
    class_times,
    domain_gains,
    summarise,
    summarise_rounds,
)
from graft.report.tables import (
    CLASS_CAPTION,
    CLASS_HEADINGS,
    HEADINGS,
    class_cells,
    notes,
    table_cells,
)
from graft.report.text import cost_words, failed_words, failure_lines, gained_words

REPORT_NAME = "report.html"
# The table of domains, which draws only the rows on view, shows the rest.
_MOST_FAILURES = 200
_MOST_ROUNDS = 24


def write_report(run_folder: AnyPath) -> AnyPath:
    """Write ``report.html`` into a run folder, atomically.

    Parameters
    ----------
    run_folder
        A run's folder.

    Returns
    -------
    AnyPath
        The page.

    Raises
    ------
    RunError
        Where the folder is not a run's.
    ExtraMissingError
        Without the extra ``graft-fl[report]``.
    """
    page = report_page(read_run(run_folder))
    path = run_folder / REPORT_NAME
    replace_file(path, page.encode())
    return path


def report_page(run: RunRecord) -> str:
    """The whole page as text; the same run gives the same text."""
    summaries = summarise(run.rows, run.ledger, run.config)
    main = summaries[0]
    run_id = str(run.run.get("id", "run"))
    failed = failure_lines(run)
    headings = ("Round", "Domain", "Method", "Error", "Message")
    failure_rows = [
        (str(x.round_index), x.domain_id, display_name(x.method), x.error, x.message)
        for x in failed[:_MOST_FAILURES]
    ]
    times = class_times(run.rows, run.config.method, run.config.network.deadline_s)
    details = {
        "Configuration": config_to_dict(run.config),
        "World": run.world,
        "Versions": run.versions,
        "Run": run.run,
    }
    return render(
        "report.html.j2",
        f"graft: {run_id}",
        run_id=run_id,
        run_line=_run_line(run),
        status=str(run.run.get("status", "unknown")),
        key_figures=_key_figures(main),
        words=(
            ("What was gained", gained_words(main, domain_gains(run.rows, main.method))),
            ("What it cost", cost_words(main, run)),
            ("What failed", failed_words(summaries, run)),
        ),
        is_alarm=bool(failed) or not all(summary.complete for summary in summaries),
        figures=list(_figures(run, summaries)),
        methods={
            "headings": HEADINGS,
            "rows": [(summary, table_cells(summary)) for summary in summaries],
            "notes": notes(summaries),
        },
        transfers=_transfers(run),
        class_caption=CLASS_CAPTION,
        class_times=PageTable(headings=CLASS_HEADINGS, rows=[class_cells(each) for each in times]),
        failure_count=len(failed),
        failures=PageTable(headings=headings, rows=failure_rows, text_columns=(1, 2, 3, 4)),
        ledger_words=_ledger_words(run),
        ledger=_ledger_table(run),
        details=[
            (
                heading,
                PageTable(headings=("Key", "Value"), rows=flat_rows(table), text_columns=(1,)),
            )
            for heading, table in details.items()
        ],
        columns=safe(script_json(domain_columns(run))),
        script=safe(page_file("page.js")),
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


def _key_figures(main: MethodSummary) -> Sequence[tuple[str, str]]:
    share = NOT_RUN if main.ship_all_share is None else percent_text(main.ship_all_share)
    gain = NONE if main.gain_mean is None else f"{points_text(main.gain_mean)} pts"
    return (
        (percent_text(main.accuracy_mean), f"mean accuracy, {main.count_label} target domains"),
        (gain, f"over label-only, {main.gain_pairs} paired"),
        (bytes_text(main.bytes_down), "payload down, all target domains"),
        (share, "of ship-all's payload down"),
    )


def _figures(run: RunRecord, summaries: Sequence[MethodSummary]) -> Iterator[PageFigure]:
    main = run.config.method
    name = display_name(main)
    rounds = summarise_rounds(run.rows, run.config)
    gains = domain_gains(run.rows, main)
    yield page_figure(
        "Accuracy per round",
        "Mean over the target domains of each round that finished, with the 95 % interval of the "
        "mean. Rounds hold different target domains.",
        lambda canvas: accuracy_per_round(rounds, canvas),
    )
    yield page_figure(
        "Accuracy against bytes",
        "Payload bytes down that each method was charged. Ringed: the Pareto front, where no "
        "complete method reaches more for as few bytes; the all-labels reference, which learns "
        "from labels that target domains do not have, is left out of it.",
        lambda canvas: accuracy_against_bytes(summaries, canvas),
    )
    yield page_figure(
        "Bytes by phase",
        "Payload bytes of rounds 1 and later by phase, down to the target domains and up from "
        "them. The system's own messages are charged to no method.",
        lambda canvas: bytes_by_phase(run.ledger, main, canvas),
    )
    yield page_figure(
        "Bytes per round",
        f"Payload bytes of {name} in each round, both ways, with the system's own messages.",
        lambda canvas: bytes_by_round(run.ledger, main, canvas),
    )
    yield page_figure(
        "Per-domain gain over label-only",
        f"Accuracy of {name} minus that of label-only, for each target domain that finished both.",
        lambda canvas: domain_gains_figure(gains, canvas),
    )
    yield page_figure(
        "Time per device class",
        f"Measured seconds of {name} on the machine that ran each target domain; one dot a "
        "target domain, at most 400 a class by rank, marks at p50 (thick), p95 and p99.",
        lambda canvas: time_by_device_class(run.rows, main, canvas),
    )


def _transfers(run: RunRecord) -> dict[str, Any]:
    transfers = transfers_by_round(run.rows, run.config.method)
    domains = Counter(index for index, _ in {(r.round_index, r.domain_id) for r in run.rows})
    caption = (
        "Each point is a round with the number of domains that joined in it. An arc runs from the "
        "round of the sources to the round of the target domains that learned from them; its width "
        "is the number of transfers, and it is blue where target domains of earlier rounds are the "
        "sources."
    )
    figure = None
    if transfers:
        figure = page_figure(
            "", caption, lambda canvas: transfer_figure(transfers, domains, canvas)
        )
    return {"words": transfer_words(transfers), "figure": figure}


def _ledger_words(run: RunRecord) -> str:
    total = payload_by(run.ledger, "up")
    cut = len(run.ledger["round_index"].unique()) > _MOST_ROUNDS
    return (
        "Payload bytes of every method and of the system, round 0 included: "
        f"{bytes_text(total.get((DOWN,), 0))} down, {bytes_text(total.get((UP,), 0))} up."
        + (f" Shown: the last {_MOST_ROUNDS} rounds." if cut else "")
    )


def _ledger_table(run: RunRecord) -> PageTable:
    """Messages and payload bytes by round and phase, of all methods and of the main one."""
    main = run.config.method
    counts: Counter[tuple[int, str, bool]] = Counter()
    groups = run.ledger.group_by(["round_index", "phase", "outcome"]).aggregate([([], "count_all")])
    for each in groups.to_pylist():
        counts[each["round_index"], each["phase"], each["outcome"] == "ok"] += each["count_all"]
    spent: Counter[tuple[int, str, bool, bool]] = Counter()  # by round, phase, up, main method
    sums = payload_by(run.ledger, "round_index", "phase", "up", "method")
    for (index, phase, up, method), num_bytes in sums.items():
        spent[index, phase, up, False] += num_bytes
        spent[index, phase, up, True] += num_bytes if method == main else 0
    rows = []
    for index in sorted({key[0] for key in counts})[-_MOST_ROUNDS:]:
        for phase in PHASES:
            failed = counts[index, phase, False]
            if messages := failed + counts[index, phase, True]:
                cells = [str(index), phase, f"{messages:,}", str(failed)]
                for own in (False, True):
                    cells += [bytes_text(spent[index, phase, up, own]) for up in (DOWN, UP)]
                rows.append(cells)
    name = display_name(main)
    headings = (
        "Round", "Phase", "Messages", "Not ok", "Payload down", "Payload up",
        f"{name} down", f"{name} up",
    )  # fmt: skip
    return PageTable(headings=headings, rows=rows, text_columns=(1,))
