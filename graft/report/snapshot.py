"""A run as far as it is by now, read from a folder that may still be written."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from graft.core.files import AnyPath
from graft.core.ledger import is_upload, read_ledger
from graft.core.results import ResultRow, read_results
from graft.report.run import read_tables
from graft.report.summary import MethodSummary, RoundSummary, summarise, summarise_rounds

Bytes = tuple[int, int]  # payload down and up


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """The phase that runs: ``done`` of ``wanted`` answers, payload bytes of its round so far,
    and when that was told, in epoch seconds."""

    round_index: int
    phase: str
    done: int
    wanted: int
    payload_bytes: int
    told_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What a run has reached. Figures are those of the ``finished`` rounds, round 0 included.

    ``status`` is run.toml's: running, complete or failed. ``planned``: rounds in all, with round
    0. ``failures``: a line each, in the words of the results. ``bytes_by_phase`` is of every
    method and of the system.
    """

    run_id: str
    status: str
    reason: str
    world: str
    seed: int
    main: str
    started: datetime | None
    ended: datetime | None
    planned: int
    finished: int
    domains: int
    stage: Stage | None
    methods: tuple[MethodSummary, ...]
    rounds: tuple[RoundSummary, ...]
    bytes_by_phase: Mapping[str, Bytes]
    failures: tuple[str, ...]

    @property
    def is_running(self) -> bool:
        return self.status == "running"


@dataclass(slots=True)
class RunWatcher:
    """Looks at a run again and again; a finished round is read once.

    ``progress`` is the file that says which phase runs; ``planned``: how many rounds, where that
    is not the configuration's to say.
    """

    folder: AnyPath
    progress: AnyPath
    planned: int | None = None
    _rows: list[ResultRow] = field(default_factory=list)
    _bytes: dict[str, Bytes] = field(default_factory=dict)
    _finished: int = 0
    _methods: tuple[MethodSummary, ...] = ()
    _rounds: tuple[RoundSummary, ...] = ()

    def look(self) -> Snapshot:
        """The run as it is now; raises RunError where the folder is no run's."""
        tables, config = read_tables(self.folder)
        run = tables["run"]
        if self._read_rounds():
            targets = [row for row in self._rows if row.round_index >= 1]
            self._methods = summarise(targets, (), config) if targets else ()
            self._rounds = summarise_rounds(targets, config)
        return Snapshot(
            run_id=run["id"],
            status=run["status"],
            reason=run.get("reason", ""),
            world=tables.get("world", {}).get("name", config.world.kind),
            seed=run.get("seed", config.seed),
            main=config.method,
            started=_time(run.get("started")),
            ended=_time(run.get("finished")),
            planned=self.planned or config.rounds + 1,
            finished=self._finished,
            domains=len({row.domain_id for row in self._rows}),
            stage=self._stage(),
            methods=self._methods,
            rounds=self._rounds,
            bytes_by_phase=dict(self._bytes),
            failures=tuple(
                f"round {row.round_index}, {row.domain_id} ({row.method}): "
                f"{row.error}: {row.error_message or ''}"
                for row in self._rows
                if row.error
            ),
        )

    def _read_rounds(self) -> bool:
        """Whether a round was over that had not been read."""
        known = self._finished
        while (self.folder / "rounds" / str(self._finished) / "results.parquet").exists():
            folder = self.folder / "rounds" / str(self._finished)
            for entry in read_ledger(folder / "ledger.parquet"):
                down, up = self._bytes.get(entry.phase, (0, 0))
                if is_upload(entry):
                    self._bytes[entry.phase] = down, up + entry.payload_bytes
                else:
                    self._bytes[entry.phase] = down + entry.payload_bytes, up
            self._rows += read_results(folder / "results.parquet")
            self._finished += 1
        return self._finished > known

    def _stage(self) -> Stage | None:
        """None before the first phase, and where nothing was told."""
        try:
            told = json.loads(self.progress.read_text("utf-8"))
        except FileNotFoundError:
            return None
        return Stage(
            round_index=told["round"],
            phase=told["phase"],
            done=told["done"],
            wanted=told["wanted"],
            payload_bytes=told["payload_bytes"],
            told_s=told["time"],
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
    told = datetime.fromisoformat(text)
    return told if told.tzinfo else told.replace(tzinfo=UTC)
