"""Every record within the table of ranges goes through: decode, digest, Parquet, report, metrics.

The quick suite takes a few records of each type, ``make test-all`` 10,000; for a million:
``GRAFT_RECORDS=1000000 pytest -m slow tests/unit/server/test_every_valid_record.py``. Of many
records, Hypothesis draws one of a hundred; the others have the same texts and other numbers.
"""

import io
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import record_strategies as records
import tomli_w
from graft_server.catalogue import read_cards, write_cards, write_profiles
from graft_server.observability.metrics import RunMetrics
from graft_server.request_log import response_to
from graft_server.run_folder import RunFolder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from graft.core.config import ExpansionConfig, SelectionConfig
from graft.core.config_files import config_to_dict
from graft.core.exchange import (
    Failure,
    ProbeRequest,
    ProfileRequest,
    Request,
    Selection,
    TrainRequest,
    TrainResult,
)
from graft.core.records import DomainProfile, LedgerEntry, ModelCard, SystemState
from graft.core.results import ResultRow, result_row
from graft.core.tables import ledger_table, results_table, write_ledger, write_results
from graft.core.tasks import Task
from graft.report.page.report import report_page
from graft.report.run import read_run
from graft.report.summary import summarise
from graft.report.tables import markdown_table, rich_table, summary_dict
from graft.report.watch import RunWatcher, snapshot_dict, watch_view
from graft.rounds import digest
from graft.selection import rank_catalogue
from graft.wire.messages.codec import encode_card, encode_request, encode_response
from graft.wire.messages.replies import decode_transfers, encode_transfers

CONFIG = ExpansionConfig(rounds=1, method="hat", comparisons=("label-only",))
TASK = Task(name="t", modality="imu", sample_shape=(6, 128), classes=("a", "b"))
COUNTS = [30, pytest.param(int(os.environ.get("GRAFT_RECORDS", 10_000)), marks=pytest.mark.slow)]
counts = pytest.mark.parametrize("count", COUNTS)
_BATCH = 200
_REDRAWN = 100


def check_each(count: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Check so many values of a strategy."""
    repeats = _REDRAWN if count > 10 * _REDRAWN else 1

    def check_some(record: Any, seed: int) -> None:
        check(record)
        rng = np.random.default_rng(seed)
        for _ in range(repeats - 1):
            check(records.redrawn(record, rng))

    quick = settings(
        max_examples=count // repeats, deadline=None, suppress_health_check=list(HealthCheck)
    )
    quick(given(strategy, st.integers(0, 2**32))(check_some))()


def train_request(result: TrainResult | Failure | LedgerEntry) -> TrainRequest:
    return TrainRequest(
        domain_id=result.domain_id, round_index=1, method="hat", sources=(), register=True
    )


def digested(request: Request, response: Any) -> Any:
    return digest(request, response_to(request, encode_response(response)), TASK)


class Batches:
    """Records are added one by one and checked together, and so is the last one by itself."""

    def __init__(self, check: Callable[[list[Any]], Any]) -> None:
        self.check = check
        self.batch: list[Any] = []

    def add(self, record: Any) -> None:
        self.batch.append(record)
        if len(self.batch) == _BATCH:
            self.flush()

    def flush(self) -> None:
        self.check(self.batch[-1:])
        self.check(self.batch)
        self.batch.clear()


class Viewer:
    """A run folder, and everything that shows it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        run = {"id": "r", "seed": 0, "status": "running", "started": datetime.now(UTC).isoformat(),
               "hash": "", "reason": ""}  # fmt: skip
        tables = {"run": run, "world": {"name": "imu"}, "config": config_to_dict(CONFIG)}
        (path / "run.toml").write_text(tomli_w.dumps(tables), "utf-8")
        self.folder = RunFolder(path)

    def show(self, rows: list[ResultRow], *, page: bool = False) -> None:
        # Those of one domain, as redrawn ones are, are of different domains here.
        rows = [replace(row, domain_id=f"{row.domain_id[:60]}-{n}") for n, row in enumerate(rows)]
        entries = [entry(row.domain_id) for row in rows]
        results_table(rows)
        summary = summarise(rows, ledger_table([]), CONFIG)
        Console(file=io.StringIO(), width=200).print(rich_table(summary))
        assert markdown_table(summary)
        assert summary_dict(summary)
        self.folder.save_round(SystemState(round_index=2), rows, entries)
        write_results(rows, self.path / "results.parquet")
        write_ledger(entries, self.path / "ledger.parquet")
        watcher = RunWatcher(self.path, self.path / "progress.json")
        now = watcher.look()
        Console(file=io.StringIO(), width=200).print(watch_view(now, datetime.now(UTC)))
        assert snapshot_dict(now)
        registry = CollectorRegistry()
        registry.register(RunMetrics(watcher))
        assert b"graft_" in generate_latest(registry)
        if page:
            assert report_page(read_run(self.path)).startswith("<!doctype html>")


def entry(domain_id: str, **other: Any) -> LedgerEntry:
    return LedgerEntry(
        **{
            "run": "r", "round_index": 1, "phase": "ship", "method": "hat", "domain_id": domain_id,
            "sender": "depot", "receiver": domain_id, "message": "payload.base",
            "payload_bytes": 1, "wire_bytes": 1, "wire_source": "measured", **other,
        }
    )  # fmt: skip


@counts
def test_results_and_failures(count: int, tmp_path: Path) -> None:
    viewer = Viewer(tmp_path)
    rows: list[ResultRow] = []
    batches = Batches(viewer.show)
    (tmp_path / "rounds" / "0").mkdir(parents=True)
    write_results([], tmp_path / "rounds" / "0" / "results.parquet")
    write_ledger([], tmp_path / "rounds" / "0" / "ledger.parquet")

    def check(response: TrainResult | Failure) -> None:
        response = replace(response, round_index=1, method="hat")
        got = digested(train_request(response), response)
        assert type(got) is type(response)
        row = result_row(got)
        batches.add(row)
        rows[_BATCH:] = [row]

    check_each(count, records.results | records.traced_reports() | records.failures, check)
    batches.flush()
    viewer.show(rows, page=True)


@counts
def test_profiles(count: int, tmp_path: Path) -> None:
    written = Batches(lambda batch: write_profiles(batch, tmp_path / "profiles.parquet"))

    def check(profile: DomainProfile) -> None:
        request = ProfileRequest(domain_id=profile.domain_id, round_index=1)
        got = digested(request, profile)
        assert isinstance(got, DomainProfile) or got.error == "EdgeError"
        written.add(profile)
        size = profile.statistics_D.size
        own = [np.float32(scale) * np.ones(size, np.float32) for scale in (0, 1, 2)]
        cards = [card(f"d{n}", replace(profile, statistics_D=z)) for n, z in enumerate(own)]
        cards.append(card("liar", profile))
        for ranked in rank_catalogue([profile, cards[0].profile], cards, SelectionConfig()):
            distances = [distance for _, distance in ranked]
            assert distances == sorted(distances)
            request = ProbeRequest(
                domain_id="d",
                round_index=1,
                method="hat",
                candidates=tuple(each.for_probe() for each, _ in ranked),
                coarse_distances=tuple(distances),
            )
            encode_request(request)

    check_each(count, records.profiles.filter(lambda p: p.statistics_D.size), check)
    written.flush()


def card(domain_id: str, profile: DomainProfile) -> ModelCard:
    return ModelCard(
        model_id="ab" * 32, domain_id=domain_id, architecture="mlp", payload_bytes=1, base_bytes=1,
        residual_bytes=1, class_mask_C=np.ones(2, np.bool_), round_index=0, profile=profile,
    )  # fmt: skip


@counts
def test_selections(count: int) -> None:
    def check(selection: Selection) -> None:
        request = ProbeRequest(
            domain_id=selection.domain_id, round_index=1, method="hat", candidates=(),
            coarse_distances=(),
        )  # fmt: skip
        assert digested(request, selection) == selection

    check_each(count, records.selections, check)


@counts
def test_cards(count: int, tmp_path: Path) -> None:
    def check(some: list[ModelCard]) -> None:
        write_cards(some, tmp_path / "catalogue.parquet")
        again = read_cards(tmp_path / "catalogue.parquet")
        assert list(map(encode_card, again)) == list(map(encode_card, some))

    batches = Batches(check)
    check_each(count, records.cards(), batches.add)
    batches.flush()


@counts
def test_transfers(count: int) -> None:
    rows = st.builds(
        entry,
        domain_id=records.domain_ids,
        attempt=records.rounds,
        payload_bytes=records.sizes,
        wire_bytes=records.sizes,
        measured_s=records.seconds,
    )

    batches = Batches(ledger_table)

    def check(row: LedgerEntry) -> None:
        row = replace(row, round_index=1)
        assert decode_transfers(encode_transfers([row]), train_request(row), "r") == [row]
        batches.add(row)

    check_each(count, rows, check)
    batches.flush()
