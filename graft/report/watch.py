"""The state of a run, read from a folder that may still be written, and its terminal view."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from graft.core.files import AnyPath
from graft.core.results import ResultRow
from graft.core.tables import LEDGER_SCHEMA, read_results
from graft.core.text import printable
from graft.report.formatting import (
    PHASES,
    bytes_text,
    count_text,
    display_name,
    percent_text,
    points_text,
    seconds_text,
)
from graft.report.run import DOWN, UP, payload_by, read_ledger_table, read_tables
from graft.report.summary import MethodSummary, RoundSummary, summarise, summarise_rounds
from graft.report.tables import filled, row_style

MOST_FAILURES = 8
_MOST_ROUNDS = 6
_STATUS_STYLES = {"running": "bold cyan", "complete": "bold green", "failed": "bold red"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseProgress:
    """The running phase: ``done`` of ``wanted`` responses, the payload bytes of its round so far,
    and when that was written, in epoch seconds."""

    round_index: int
    phase: str
    done: int
    wanted: int
    payload_bytes: int
    reported_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The state of a run. Figures cover the ``finished`` of the ``planned`` rounds, with round 0.

    ``status`` is run.toml's. ``bytes_by_phase`` are payload bytes down and up, of every method and
    of the system. ``failures`` has a line for each failed domain and method.
    """

    run_id: str
    status: str
    reason: str
    world: str
    seed: int
    started: datetime | None
    ended: datetime | None
    planned: int
    finished: int
    domains: int
    stage: PhaseProgress | None
    methods: tuple[MethodSummary, ...]
    rounds: tuple[RoundSummary, ...]
    bytes_by_phase: Mapping[str, tuple[int, int]]
    failures: tuple[str, ...]

    @property
    def is_running(self) -> bool:
        return self.status == "running"


@dataclass(slots=True)
class RunWatcher:
    """Takes snapshots of a run; a finished round is read once.

    ``progress`` is the file that states the running phase. ``planned`` is the number of rounds,
    where the configuration does not state it.
    """

    folder: AnyPath
    progress: AnyPath
    planned: int | None = None
    _rows: list[ResultRow] = field(default_factory=list)
    _bytes: Counter[tuple[str, bool]] = field(default_factory=Counter)
    _finished: int = 0
    _methods: tuple[MethodSummary, ...] = ()
    _rounds: tuple[RoundSummary, ...] = ()

    def look(self) -> Snapshot:
        """The run as it is now; raises RunError where the folder holds no run."""
        tables, config = read_tables(self.folder)
        run = tables["run"]
        if self._read_rounds():
            targets = [row for row in self._rows if row.round_index >= 1]
            no_messages = LEDGER_SCHEMA.empty_table()
            self._methods = summarise(targets, no_messages, config) if targets else ()
            self._rounds = summarise_rounds(targets, config)
        return Snapshot(
            run_id=run["id"],
            status=run["status"],
            reason=run.get("reason", ""),
            world=tables.get("world", {}).get("name", config.world.kind),
            seed=run.get("seed", config.seed),
            started=_time(run.get("started")),
            ended=_time(run.get("finished")),
            planned=self.planned or config.rounds + 1,
            finished=self._finished,
            domains=len({row.domain_id for row in self._rows}),
            stage=self._stage(),
            methods=self._methods,
            rounds=self._rounds,
            bytes_by_phase={
                phase: (self._bytes.get((phase, DOWN), 0), self._bytes.get((phase, UP), 0))
                for phase in PHASES
                if {(phase, DOWN), (phase, UP)} & self._bytes.keys()
            },
            failures=tuple(
                f"round {row.round_index}, {row.domain_id} ({row.method}): "
                f"{row.error}: {row.error_message or ''}"
                for row in self._rows
                if row.error
            ),
        )

    def _read_rounds(self) -> bool:
        """Read the rounds that finished since the last call; whether there were any."""
        known = self._finished
        while (self.folder / "rounds" / str(self._finished) / "results.parquet").exists():
            folder = self.folder / "rounds" / str(self._finished)
            ledger = read_ledger_table(folder / "ledger.parquet")
            self._bytes.update(payload_by(ledger, "phase", "up"))
            self._rows += read_results(folder / "results.parquet")
            self._finished += 1
        return self._finished > known

    def _stage(self) -> PhaseProgress | None:
        try:
            progress = json.loads(self.progress.read_text("utf-8"))
        except FileNotFoundError:
            return None
        return PhaseProgress(
            round_index=progress["round"],
            phase=progress["phase"],
            done=progress["done"],
            wanted=progress["wanted"],
            payload_bytes=progress["payload_bytes"],
            reported_s=progress["time"],
        )


def snapshot_dict(now: Snapshot) -> dict[str, Any]:
    """Plain values for JSON: shares of 1, payload bytes, times in ISO 8601."""
    return {
        "run": now.run_id,
        "status": now.status,
        "reason": now.reason,
        "started": now.started and now.started.isoformat(),
        "finished": now.ended and now.ended.isoformat(),
        "rounds": {"finished": now.finished, "planned": now.planned},
        "domains": now.domains,
        "stage": now.stage and dataclasses.asdict(now.stage),
        "methods": [
            {
                "method": each.method,
                "finished": each.finished,
                "wanted": each.wanted,
                "accuracy": each.accuracy_mean,
                "gain": each.gain_mean,
            }
            for each in now.methods
        ],
        "bytes_by_phase": {
            phase: {"down": down, "up": up} for phase, (down, up) in now.bytes_by_phase.items()
        },
        "failures": list(now.failures),
    }


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def watch_view(now: Snapshot, time_now: datetime) -> RenderableType:
    """Render a snapshot: status, phase, accuracy so far, bytes by phase, failures by name."""
    parts: list[RenderableType] = [_head(now, time_now)]
    if now.is_running:
        parts.append(_stage(now, time_now))
    # Above the tables, because a low terminal cuts off the end.
    parts += [_failures(now), Text("")]
    tables: list[RenderableType] = []
    if now.methods:
        tables.append(_methods(now))
    elif now.finished:
        parts.append(Text("No round of target domains has finished yet.", style="dim"))
    if now.bytes_by_phase:
        tables.append(_bytes(now))
    parts.append(Columns(tables, padding=(1, 3)))  # side by side where the terminal is wide enough
    title = Text.assemble("graft watch ", (now.run_id, "bold"))
    return Panel(Group(*parts), title=title, title_align="left", padding=(0, 1))


def _head(now: Snapshot, time_now: datetime) -> RenderableType:
    until = now.ended or time_now
    lasted = "" if now.started is None else (
        f" · {seconds_text(max(0.0, (until - now.started).total_seconds()))}"
    )  # fmt: skip
    line = Text.assemble(
        (now.status, _STATUS_STYLES.get(now.status, "bold")),
        f" · {now.world} · seed {now.seed} · {now.finished} of {now.planned} rounds finished"
        f" · {count_text(now.domains, 'domain')}{lasted}",
    )
    return Group(line, Text(printable(now.reason), style="red")) if now.reason else line


def _stage(now: Snapshot, time_now: datetime) -> RenderableType:
    stage = now.stage
    if stage is None:
        return Text("No phase has started yet.", style="dim")
    grid = Table.grid(padding=(0, 1))
    age_s = max(0.0, time_now.timestamp() - stage.reported_s)
    grid.add_row(
        Text(f"round {stage.round_index} {stage.phase}", style="bold"),
        ProgressBar(total=max(1, stage.wanted), completed=stage.done, width=24),
        Text(f"{stage.done:,}/{stage.wanted:,}"),
        Text(bytes_text(stage.payload_bytes)),
        Text("" if age_s < 5 else f"last update {seconds_text(age_s)} ago", style="dim"),
    )
    return grid


def _methods(now: Snapshot) -> Table:
    last = sorted({each.round_index for each in now.rounds})[-_MOST_ROUNDS:]
    heads = ["Method", "Finished", "Accuracy", "Gain", *(f"R{index}" for index in last)]
    rows = []
    for number, each in enumerate(now.methods):
        of_round = {r.round_index: r for r in now.rounds if r.method == each.method}
        cells = [
            display_name(each.method),
            each.count_label,
            percent_text(each.accuracy_mean),
            points_text(each.gain_mean),
            *(percent_text(of_round[index].accuracy_mean) for index in last),
        ]
        rows.append((cells, row_style(each, is_main=number == 0)))
    return _table(heads, rows)


def _bytes(now: Snapshot) -> Table:
    sums = now.bytes_by_phase.items()
    rows = [((phase, bytes_text(down), bytes_text(up)), "") for phase, (down, up) in sums]
    return _table(["Payload", "Down", "Up"], rows)


def _failures(now: Snapshot) -> RenderableType:
    if not now.failures:
        return Text("Nothing failed.", style="green")
    lines = [Text(f"{len(now.failures):,} failed", style="bold red")]
    # Text, not markup: a domain id such as "[red]" is a name.
    lines += [
        Text(printable(line), overflow="ellipsis", no_wrap=True)
        for line in now.failures[-MOST_FAILURES:]
    ]
    return Group(*lines)


def _table(heads: Sequence[str], rows: Iterable[tuple[Sequence[str], str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    filled(table, heads, rows)
    for column in table.columns:
        column.no_wrap = True
    return table
