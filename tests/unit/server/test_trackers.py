"""Trackers hold what a run reached, read back from what they wrote themselves."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from graft_server.observability.trackers import (
    MlflowTracker,
    flat_settings,
    open_tracker,
    round_figures,
    tracked,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from graft.core.config import ExpansionConfig
from graft.core.ledger import DEPOT
from graft.core.records import LedgerEntry
from graft.core.results import ResultRow
from graft.errors import ConfigError, ExtraMissingError

CONFIG = ExpansionConfig(rounds=2, method="hat", comparisons=("label-only",))


def rows_of(index: int, hat: float | None, label_only: float) -> list[ResultRow]:
    error = {"error": "DomainLostError", "error_message": "gone"} if hat is None else {}
    return [
        ResultRow(domain_id="ann", method="hat", round_index=index, accuracy=hat, macro_f1=hat,
                  compute_s=2.0, **error),
        ResultRow(domain_id="ann", method="label-only", round_index=index, accuracy=label_only,
                  macro_f1=label_only, compute_s=1.0),
    ]  # fmt: skip


def sent(index: int, method: str, num_bytes: int) -> LedgerEntry:
    return LedgerEntry(
        run="r", round_index=index, phase="ship", method=method, domain_id="ann", sender=DEPOT,
        receiver="ann", message="fetch", payload_bytes=num_bytes, wire_bytes=num_bytes,
        wire_source="modelled",
    )  # fmt: skip


INITIAL_DOMAINS = [
    ResultRow(domain_id="f", method="initial", round_index=0, accuracy=0.5, macro_f1=0.5)
]
ROUNDS = (
    (0, INITIAL_DOMAINS, [sent(0, "", 10)]),
    (1, rows_of(1, 0.8, 0.6), [sent(1, "hat", 100)]),
    (2, rows_of(2, 0.9, 0.5), [sent(2, "hat", 200)]),
)


def tell(kind: str, place: Path | str, run: str = "first", rounds: int = 3) -> None:
    with tracked([open_tracker(f"{kind}={place}")], run, CONFIG) as on_round:
        for index, rows, entries in ROUNDS[:rounds]:
            on_round(index, rows, entries)


def test_figures_of_a_round_are_its_own() -> None:
    assert round_figures(*ROUNDS[0][1:], CONFIG) == {
        "run/payload_bytes": 10, "run/failed": 0, "initial domain/accuracy": 0.5,
    }  # fmt: skip
    figures = round_figures(*ROUNDS[1][1:], CONFIG)
    assert figures["hat/accuracy"] == 0.8
    assert figures["hat/gain_over_label_only"] == pytest.approx(0.2)
    assert figures["hat/payload_bytes_down"] == 100
    assert figures["label-only/device_s"] == 1.0
    failed = round_figures(rows_of(1, None, 0.6), [], CONFIG)
    assert (failed["run/failed"], failed["hat/finished"]) == (1, 0)
    assert "hat/accuracy" not in failed


def test_tensorboard_reads_every_round_back(tmp_path: Path) -> None:
    tell("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "first"))
    events.Reload()
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("hat/accuracy")] == [
        (1, 0.8), (2, 0.9),
    ]  # fmt: skip
    assert [e.value for e in events.Scalars("run/payload_bytes")] == [10, 100, 200]
    assert "settings/text_summary" in events.Tags()["tensors"]


def test_an_mlflow_file_store_reads_settings_and_rounds_back(tmp_path: Path) -> None:
    tell("mlflow", tmp_path / "store")
    client = MlflowTracker(str(tmp_path / "store"))._client
    (run,) = client.search_runs([client.get_experiment_by_name("graft").experiment_id])
    history = client.get_metric_history(run.info.run_id, "hat/accuracy")
    assert [(each.step, each.value) for each in history] == [(1, 0.8), (2, 0.9)]
    assert run.data.params["split.gamma"] == "0.1"
    assert run.data.params["method"] == "hat"
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert (tmp_path / "store").is_dir()


def test_mlflow_goes_on_in_the_run_that_was_begun(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    tell("mlflow", place, rounds=2)
    again = open_tracker(f"mlflow={place}")
    again.begin("first", flat_settings(CONFIG))
    again.log(round_figures(*ROUNDS[2][1:], CONFIG), 2)
    again.close(failed=True)
    tell("mlflow", place, run="second", rounds=1)
    client = MlflowTracker(place)._client
    runs = client.search_runs([client.get_experiment_by_name("graft").experiment_id])
    found = {run.info.run_name: run for run in runs}
    assert sorted(found) == ["first", "second"]
    assert found["first"].info.status == "FAILED"
    history = client.get_metric_history(found["first"].info.run_id, "hat/accuracy")
    assert [each.value for each in history] == [0.8, 0.9]


@pytest.mark.slow
def test_wandb_writes_an_offline_run_and_opens_no_account(tmp_path: Path) -> None:
    tell("wandb", tmp_path)
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"hat/accuracy" in file.read_bytes()


def test_a_tracker_that_breaks_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    class Broken:
        def begin(self, run: str, settings: Mapping[str, str]) -> None:
            pass

        def log(self, figures: Mapping[str, float], round_index: int) -> None:
            heard.append(round_index)
            raise OSError("disk full")

        def close(self, *, failed: bool) -> None:
            heard.append(-1)

    with tracked([Broken()], "first", CONFIG) as on_round:
        for each in ROUNDS:
            on_round(*each)
    assert heard == [0]
    assert "Broken: disk full" in caplog.text


def test_settings_are_flat_and_whole() -> None:
    settings = flat_settings(CONFIG)
    assert settings["comparisons"] == '["label-only"]'
    assert settings["world.kind"] == "imu"
    assert all(isinstance(value, str) for value in settings.values())


@pytest.mark.parametrize("text", ["tensorboard", "tensorboard=", "neptune=x", ""])
def test_another_tracker_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="KIND=PLACE"):
        open_tracker(text)


@pytest.mark.parametrize(
    ("kind", "module"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb")]
)
def test_a_library_that_is_not_there_names_the_extra(
    kind: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraMissingError, match=r"graft-fl\[trackers\]"):
        open_tracker(f"{kind}={tmp_path}")


def test_trackers_are_loaded_only_where_one_is_named() -> None:
    code = "import sys, graft_server.observability.trackers as t; print([m for m in ('mlflow', 'wandb', 'tensorboard') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
