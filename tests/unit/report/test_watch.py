"""What ``graft watch`` says of a run that goes on, that is over, and that failed."""

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomli_w
from graft_server.observability.metrics import RunMetrics
from graft_server.observability.progress import ProgressFile, RoundProgress
from rich.console import Console
from typer.testing import CliRunner

from graft.cli.main import app
from graft.cli.runs import open_watcher
from graft.core.config import ExpansionConfig
from graft.core.config_files import config_to_dict
from graft.core.deployment import ServerSettings, write_server
from graft.core.records import LedgerEntry
from graft.core.results import ResultRow
from graft.core.tables import write_ledger, write_results
from graft.errors import RunError
from graft.report.watch import RunWatcher, Snapshot, snapshot_dict, watch_view

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def write_run(folder: Path, config: ExpansionConfig, **facts: str) -> None:
    run = {"id": "small", "seed": 0, "status": "running", "started": START.isoformat(),
           "hash": "", "reason": "", **facts}  # fmt: skip
    tables = {"run": run, "world": {"name": "imu"}, "config": config_to_dict(config)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.toml").write_text(tomli_w.dumps(tables), "utf-8")


def write_round(
    folder: Path, index: int, rows: Sequence[ResultRow], entries: Sequence[LedgerEntry]
) -> None:
    own = folder / "rounds" / str(index)
    own.mkdir(parents=True)
    write_ledger([e for e in entries if e.round_index == index], own / "ledger.parquet")
    write_results([r for r in rows if r.round_index == index], own / "results.parquet")


def text_of(now: Snapshot, after_s: float = 60) -> str:
    stream = io.StringIO()
    Console(file=stream, width=100).print(watch_view(now, START + timedelta(seconds=after_s)))
    return stream.getvalue()


def progress(
    round_index: int, phase: str, done: int, wanted: int, payload_bytes: int
) -> RoundProgress:
    return RoundProgress(
        round_index=round_index, phase=phase, done=done, wanted=wanted, payload_bytes=payload_bytes
    )


def test_a_running_run_grows_under_the_eye(
    tmp_path: Path, config: ExpansionConfig, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    write_run(tmp_path, config)
    watcher = RunWatcher(tmp_path, tmp_path / "progress.json")
    assert "0 of 3 rounds finished" in text_of(watcher.look())
    tell = ProgressFile(tmp_path / "progress.json", clock_s=START.timestamp)
    tell(progress(0, "report", 3, 26, 1500))
    text = text_of(watcher.look())
    for words in ("running", "round 0 report", "3/26", "1.5 kB", "last update 60 s ago"):
        assert words in text
    write_round(tmp_path, 0, rows, entries)
    assert "No round of target domains has finished yet" in text_of(watcher.look())
    write_round(tmp_path, 1, rows, entries)
    text = text_of(watcher.look())
    # Round 1 holds a and b: 0.8 and 0.9 with hat, 0.7 and 0.6 label-only.
    for words in (
        "2 of 3 rounds finished",
        "2 of 2",
        "85.0 %",
        "65.0 %",
        "+20.0",
        "Nothing failed",
    ):
        assert words in text
    assert watcher.look().bytes_by_phase["probe"] == (100, 0)


def test_a_run_that_is_over_says_how_long_it_took(
    tmp_path: Path, config: ExpansionConfig, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    ended = (START + timedelta(minutes=3, seconds=5)).isoformat()
    write_run(tmp_path, config, status="complete", finished=ended)
    for index in range(3):
        write_round(tmp_path, index, rows, entries)
    shown = CliRunner().invoke(app, ["watch", str(tmp_path), "--once"])
    assert shown.exit_code == 0, shown.output
    assert "complete" in shown.output
    assert "3 min 05 s" in shown.output
    told = json.loads(CliRunner().invoke(app, ["watch", str(tmp_path), "--format", "json"]).stdout)
    assert told["rounds"] == {"finished": 3, "planned": 3}
    assert told["methods"][0]["accuracy"] == pytest.approx(0.8)


def test_failures_are_named_and_markup_in_a_name_is_text(
    tmp_path: Path, config: ExpansionConfig
) -> None:
    write_run(tmp_path, config, status="failed", reason="EdgeError: gone")
    failed = ResultRow(domain_id="[red]x", method="hat", round_index=1, error="DomainEmptyError",
                       error_message="got 0 rows")  # fmt: skip
    for index in range(2):
        write_round(tmp_path, index, [failed], [])
    now = RunWatcher(tmp_path, tmp_path / "progress.json").look()
    text = text_of(now)
    assert "1 failed" in text
    assert "[red]x (hat): DomainEmptyError: got 0 rows" in text
    assert "EdgeError: gone" in text
    assert json.loads(json.dumps(snapshot_dict(now)))["failures"] == list(now.failures)


def test_a_deployments_server_folder_is_watched_too(
    tmp_path: Path, config: ExpansionConfig
) -> None:
    write_server(tmp_path, ServerSettings(run="field", host="here"))
    with pytest.raises(RunError, match="has not begun"):
        open_watcher(tmp_path)
    write_run(tmp_path / "runs" / "field", config)
    (tmp_path / "rounds.json").write_text(json.dumps([["ann"], ["bob"]]))
    (tmp_path / "state").mkdir()
    ProgressFile(tmp_path / "state" / "progress.json")(progress(1, "probe", 1, 2, 345))
    now = open_watcher(tmp_path).look()
    assert now.planned == 2
    assert now.stage is not None
    assert (now.stage.phase, now.stage.done, now.stage.wanted) == ("probe", 1, 2)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.toml"):
        open_watcher(tmp_path).look()


def test_progress_is_written_a_few_times_a_second_and_at_every_end(tmp_path: Path) -> None:
    times_s = iter([0.0, 0.1, 0.3, 0.31, 0.32])
    path = tmp_path / "progress.json"
    tell = ProgressFile(path, clock_s=lambda: next(times_s))

    def written(done: int, phase: str = "probe") -> int:
        tell(progress(1, phase, done, 3, 0))
        kept: int = json.loads(path.read_text())["done"]
        return kept

    assert written(0) == 0
    assert written(1) == 0  # a tenth of a second later
    assert written(2) == 2
    assert written(3) == 3  # all answered
    assert written(0, "report") == 0  # the next phase


def test_a_run_has_gauges(
    tmp_path: Path, config: ExpansionConfig, rows: list[ResultRow], entries: list[LedgerEntry]
) -> None:
    watcher = RunWatcher(tmp_path, tmp_path / "progress.json")
    assert list(RunMetrics(watcher).collect()) == []  # no folder yet
    write_run(tmp_path, config)
    for index in range(2):
        write_round(tmp_path, index, rows, entries)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in RunMetrics(watcher).collect()
        for sample in family.samples
    }
    assert found["graft_run_active",] == 1
    assert found["graft_rounds_finished",] == 2
    assert found["graft_accuracy", "hat"] == pytest.approx(0.85)
    assert found["graft_payload_bytes", "ship", "down"] == 2 * 1200 + 7_000_000
