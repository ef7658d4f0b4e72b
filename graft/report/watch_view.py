"""A snapshot of a run for the terminal."""

from collections.abc import Sequence
from datetime import datetime

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from graft.report.figures.traffic import PHASES
from graft.report.formatting import (
    bytes_text,
    count_text,
    display_name,
    percent_text,
    points_text,
    seconds_text,
)
from graft.report.snapshot import Snapshot

MOST_FAILURES = 8
_MOST_ROUNDS = 6
_STATUS_STYLES = {"running": "bold cyan", "complete": "bold green", "failed": "bold red"}


def watch_view(now: Snapshot, time_now: datetime) -> RenderableType:
    """The whole view: status, phase, accuracy so far, bytes by phase, failures by name."""
    parts: list[RenderableType] = [_head(now, time_now)]
    if now.is_running:
        parts.append(_stage(now, time_now))
    # Above the tables, because a low terminal cuts what stands last.
    parts += [_failures(now), Text("")]
    tables: list[RenderableType] = []
    if now.methods:
        tables.append(_methods(now))
    elif now.finished:
        parts.append(Text("No round of target domains is over yet.", style="dim"))
    if now.bytes_by_phase:
        tables.append(_bytes(now))
    parts.append(Columns(tables, padding=(1, 3)))  # side by side where there is room
    title = Text.assemble("graft watch ", (now.run_id, "bold"))
    return Panel(Group(*parts), title=title, title_align="left", padding=(0, 1))


def _head(now: Snapshot, time_now: datetime) -> RenderableType:
    until = now.ended or time_now
    lasted = "" if now.started is None else (
        f" · {seconds_text(max(0.0, (until - now.started).total_seconds()))}"
    )  # fmt: skip
    line = Text.assemble(
        (now.status, _STATUS_STYLES.get(now.status, "bold")),
        f" · {now.world} · seed {now.seed} · {now.finished} of {now.planned} rounds over"
        f" · {count_text(now.domains, 'domain')}{lasted}",
    )
    return Group(line, Text(now.reason, style="red")) if now.reason else line


def _stage(now: Snapshot, time_now: datetime) -> RenderableType:
    stage = now.stage
    if stage is None:
        return Text("No phase was told yet.", style="dim")
    grid = Table.grid(padding=(0, 1))
    silent_s = max(0.0, time_now.timestamp() - stage.told_s)
    grid.add_row(
        Text(f"round {stage.round_index} {stage.phase}", style="bold"),
        ProgressBar(total=max(1, stage.wanted), completed=stage.done, width=24),
        Text(f"{stage.done:,}/{stage.wanted:,}"),
        Text(bytes_text(stage.payload_bytes)),
        Text("" if silent_s < 5 else f"last news {seconds_text(silent_s)} ago", style="dim"),
    )
    return grid


def _methods(now: Snapshot) -> Table:
    last = sorted({each.round_index for each in now.rounds})[-_MOST_ROUNDS:]
    heads = ["Method", "Finished", "Accuracy", "Gain", *(f"R{index}" for index in last)]
    table = _table(heads)
    for number, each in enumerate(now.methods):
        of_round = {r.round_index: r for r in now.rounds if r.method == each.method}
        cells = [
            display_name(each.method),
            each.count_label,
            percent_text(each.accuracy_mean),
            points_text(each.gain_mean),
            *(percent_text(of_round[index].accuracy_mean) for index in last),
        ]
        style = "bold" if number == 0 else ("" if each.complete else "yellow")
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _bytes(now: Snapshot) -> Table:
    table = _table(["Payload", "Down", "Up"])
    for phase in PHASES:
        if phase in now.bytes_by_phase:
            down, up = now.bytes_by_phase[phase]
            table.add_row(phase, bytes_text(down), bytes_text(up))
    return table


def _failures(now: Snapshot) -> RenderableType:
    if not now.failures:
        return Text("Nothing failed.", style="green")
    lines = [Text(f"{len(now.failures):,} failed", style="bold red")]
    # Text, not markup: a domain id such as "[red]" is a name.
    lines += [
        Text(line, overflow="ellipsis", no_wrap=True) for line in now.failures[-MOST_FAILURES:]
    ]
    return Group(*lines)


def _table(heads: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    return table
