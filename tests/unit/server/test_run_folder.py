"""A run folder holds whole rounds or none of them, and goes on where it stopped."""

import hashlib
import os
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from graft_server.run_folder import RunFolder

import graft
from graft.core.config import ExpansionConfig
from graft.core.files import remove_tree, replace_file
from graft.core.records import DomainProfile, LedgerEntry, ModelCard, RejectedSource, SystemState
from graft.core.results import ResultRow, run_hash
from graft.core.tables import read_ledger, read_results
from graft.data.synthetic.imu import ImuWorld
from graft.errors import ConfigError, RunError
from graft.wire.messages.codec import encode_card
from graft.wire.transfer.transfer_log import JournalMeter

CONFIG = ExpansionConfig(seed=4, comparisons=("label-only",))
WORLD = ImuWorld(5, 40, seed=4)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "first")
    folder.begin(CONFIG, WORLD)
    return folder


def facts(folder: RunFolder) -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((folder.path / "run.toml").read_text("utf-8"))["run"]
    return table


def card(domain_id: str, round_index: int = 0) -> ModelCard:
    return ModelCard(
        model_id=domain_id.encode().hex().zfill(64),
        domain_id=domain_id,
        architecture="mlp",
        payload_bytes=30,
        base_bytes=10,
        residual_bytes=20,
        class_mask_C=np.array([True, False, True]),
        round_index=round_index,
        parents=("a" * 64,) if round_index else (),
        profile=DomainProfile(
            domain_id=domain_id,
            task="imu-world",
            num_samples=3,
            statistics_D=np.array([0.5, -1.5], np.float32),
            class_counts_C=np.array([1, 0, 2]),
        ),
        centroids_CF=np.arange(6, dtype=np.float32).reshape(3, 2),
        signature=b"s",
    )


def row(domain_id: str, round_index: int = 0, error: str | None = None) -> ResultRow:
    return ResultRow(
        domain_id=domain_id,
        method="hat",
        round_index=round_index,
        accuracy=None if error else 0.5,
        error=error,
        error_message="spilt" if error else None,
    )


def entry(domain_id: str, payload_bytes: int, round_index: int = 0) -> LedgerEntry:
    return LedgerEntry(
        run="first",
        round_index=round_index,
        phase="ship",
        method="hat",
        domain_id=domain_id,
        sender="depot",
        receiver=domain_id,
        message="payload.base",
        payload_bytes=payload_bytes,
        wire_bytes=payload_bytes + 1,
        wire_source="modelled",
    )


def encoded(state: SystemState) -> tuple[int, list[bytes]]:
    return state.round_index, [encode_card(each) for each in state.catalogue]


def test_a_new_run_says_what_it_is(folder: RunFolder) -> None:
    table = tomllib.loads((folder.path / "run.toml").read_text("utf-8"))
    assert (table["run"]["id"], table["run"]["seed"]) == ("first", 4)
    assert table["run"]["status"] == "running"
    assert table["world"]["domains"] == 5
    assert table["world"]["classes"] == list(WORLD.task.classes)
    assert table["versions"]["torch"]
    assert folder.resume() == CONFIG
    assert not folder.is_written


def test_a_second_run_does_not_overwrite_the_first(folder: RunFolder) -> None:
    before = (folder.path / "run.toml").read_bytes()
    with pytest.raises(RunError, match="holds a run already"):
        RunFolder(folder.path).begin(ExpansionConfig(), WORLD)
    assert (folder.path / "run.toml").read_bytes() == before


def test_a_run_of_former_keys_is_not_resumed_and_the_error_names_the_new_key(
    folder: RunFolder,
) -> None:
    path = folder.path / "run.toml"
    path.write_text(path.read_text("utf-8").replace("config.hat]", "config.fusion]"), "utf-8")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"fusion\.mixer_width: .* wanted hat\.mixer_width"):
        folder.resume()
    assert path.read_bytes() == before


def test_what_is_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run\.toml"):
        RunFolder(tmp_path).resume()
    (tmp_path / "run.toml").write_text("run = ", "utf-8")
    with pytest.raises(RunError, match="not TOML"):
        RunFolder(tmp_path).resume()


def test_a_run_without_a_finished_round_starts_from_nothing(folder: RunFolder) -> None:
    assert folder.load_state() == SystemState()


def test_the_last_round_comes_back_to_the_bit(folder: RunFolder) -> None:
    first = SystemState().admit((card("ann"), card("ben")))
    second = first.admit((card("cid", 1),))
    for state in (first, second):
        folder.save_round(state, [], [])
        assert encoded(RunFolder(folder.path).load_state()) == encoded(state)


def test_the_groups_models_come_back_apart_from_the_catalogue(folder: RunFolder) -> None:
    group = replace(card("group.mlp"), profile=None, centroids_CF=None)
    state = replace(SystemState().admit((card("ann"),)), architecture_averages=(group,))
    folder.save_round(state, [], [])
    again = RunFolder(folder.path).load_state()
    assert encoded(again) == encoded(state)
    assert [encode_card(each) for each in again.architecture_averages] == [encode_card(group)]


def test_a_round_that_was_cut_off_is_not_there(folder: RunFolder) -> None:
    state = SystemState().admit((card("ann"),))
    folder.save_round(state, [row("ann")], [])
    torn = folder.path / "rounds" / "1"
    torn.mkdir()
    (torn / "catalogue.parquet").write_bytes(b"PAR1")
    assert encoded(folder.load_state()) == encoded(state)
    again = state.admit((card("ben", 1),))
    folder.save_round(again, [row("ben", 1)], [])  # and it does not stand in the way
    assert encoded(folder.load_state()) == encoded(again)


def test_what_an_interrupted_round_left_on_devices_and_in_journals_is_dropped(
    folder: RunFolder,
) -> None:
    journal = JournalMeter(folder.journals / "ann.hat.jsonl")
    journal.record(entry("ann", 7))
    journal.close()
    (folder.devices / "ann").mkdir(parents=True)
    folder.load_state()
    assert folder.journal_entries() == []
    assert not folder.devices.exists()


def test_journals_are_read_once(folder: RunFolder) -> None:
    entries = [entry("ann", 7), entry("ann", 8), entry("ben", 9)]
    for each in entries:
        journal = JournalMeter(folder.journals / f"{each.domain_id}.hat.jsonl")
        journal.record(each)
        journal.close()
    assert folder.journal_entries() == entries
    assert folder.journal_entries() == []


def test_a_finished_run_is_the_sum_of_its_rounds(folder: RunFolder) -> None:
    rows = [row("ann"), row("ben", 1), row("cid", 1)]
    entries = [entry("ann", 1), entry("ben", 2, 1), entry("cid", 3, 1)]
    state = SystemState()
    for index in (0, 1):
        state = state.admit(())
        folder.save_round(
            state,
            [r for r in rows if r.round_index == index],
            [e for e in entries if e.round_index == index],
        )
    digest, failures = folder.finish(2)
    assert failures == []
    assert folder.is_written
    assert read_results(folder.path / "results.parquet") == rows
    assert read_ledger(folder.path / "ledger.parquet") == entries
    assert digest == run_hash(rows, entries)
    told = facts(folder)
    assert (told["status"], told["hash"], told["seed"]) == ("complete", digest, 4)
    assert told["finished"]


def test_a_failure_is_named_and_the_run_counts_as_failed(folder: RunFolder) -> None:
    folder.save_round(SystemState(round_index=1), [row("ann"), row("ben", error="DataError")], [])
    digest, failures = folder.finish(1)
    assert failures == ["ben (hat): DataError: spilt"]
    folder.fail("ExpansionFailedError: 1 failed")  # as the one who called finish then says
    assert (facts(folder)["status"], facts(folder)["hash"]) == ("failed", digest)


def test_a_run_with_a_round_missing_cannot_be_finished(folder: RunFolder) -> None:
    folder.save_round(SystemState(round_index=1), [row("ann")], [])
    with pytest.raises(RunError, match="results"):
        folder.finish(2)
    assert not folder.is_written


def test_a_run_that_broke_says_why_and_can_go_on(folder: RunFolder) -> None:
    folder.fail("EdgeError: gone")
    assert (facts(folder)["status"], facts(folder)["reason"]) == ("failed", "EdgeError: gone")
    folder.note(workers=2)
    assert facts(folder)["workers"] == 2
    assert folder.resume() == CONFIG
    assert facts(folder)["status"] == "running"


def spoil(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["results", "catalogue", "ledger", "profiles", "rejections"])
@pytest.mark.parametrize("content", [None, b"", b"PAR1 and so on"])
def test_a_last_round_that_is_damaged_falls_back_to_the_round_before(
    folder: RunFolder, caplog: pytest.LogCaptureFixture, name: str, content: bytes | None
) -> None:
    first = SystemState().admit((card("ann"),))
    folder.save_round(first, [row("ann")], [])
    folder.save_round(first.admit((card("ben", 1),)), [row("ben", 1)], [])
    spoil(folder.path / "rounds" / "1" / f"{name}.parquet", content)
    assert encoded(folder.load_state()) == encoded(first)
    assert caplog.messages == [
        f"round 1: {name}.parquet: damaged; the run goes on from the round before"
    ]
    assert not (folder.path / "rounds" / "1").exists()


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"sha256": 3}', b"[]"])
def test_a_round_is_finished_with_its_marker_alone(
    folder: RunFolder, content: bytes | None
) -> None:
    first = SystemState().admit((card("ann"),))
    folder.save_round(first, [row("ann")], [])
    folder.save_round(first.admit((card("ben", 1),)), [row("ben", 1)], [])
    spoil(folder.path / "rounds" / "1" / "round.json", content)
    assert folder.resume() == CONFIG
    assert folder.count_rounds() == 1


def test_steps_are_removed_after_the_rounds_marker_is_on_the_disk(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file(folder.steps / "reply", b"x")
    marker = folder.path / "rounds" / "0" / "round.json"
    sync, synced = os.fsync, set()

    def record(handle: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    def removed(path: Path) -> None:
        if path == folder.steps:
            tables = {str(each) for each in marker.parent.glob("*.parquet")}
            assert marker.exists()
            assert len(tables) == 7
            wanted = {str(marker.parent), str(marker.parents[1]), str(folder.path)}
            assert tables | wanted <= synced
        remove_tree(path)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr("graft_server.run_folder.remove_tree", removed)
    folder.save_round(SystemState().admit((card("ann"),)), [row("ann")], [])
    assert not folder.steps.exists()


@pytest.mark.parametrize("durable", [True, False])
def test_a_restarted_machine_may_have_torn_steps_and_models_that_are_not_durable(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    whole, torn = hashlib.sha256(b"whole").hexdigest(), hashlib.sha256(b"torn").hexdigest()
    for name, content in ((whole, b"whole"), (torn, b"")):
        replace_file(folder.models / f"{name}.safetensors", content)
        replace_file(folder.models / f"{name}.base", b"")
    replace_file(folder.steps / "block", b"x")
    folder.resume(durable_steps=durable)
    assert folder.steps.exists()
    monkeypatch.setattr("graft_server.run_folder.boot_id", lambda: "another")
    folder.resume(durable_steps=durable)
    assert folder.steps.exists() is durable
    names = {path.name for path in folder.models.iterdir()}
    if not durable:
        assert names == {f"{whole}.safetensors"}  # its parts are made again
    else:
        assert len(names) == 4


def test_a_resumed_run_whose_method_is_not_known_here_fails_and_says_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    config = ExpansionConfig(method="from-a-notebook", comparisons=())
    folder.begin(config, WORLD, {"name": "block"})
    with pytest.raises(ConfigError, match="from-a-notebook"):
        graft.resume(folder.path)
    assert facts(folder)["status"] == "failed"
    assert "from-a-notebook" in str(facts(folder)["reason"])


def test_a_complete_run_stays_complete(folder: RunFolder) -> None:
    folder.save_round(SystemState(round_index=1), [row("ann")], [])
    folder.finish(1)
    folder.fail("ConfigError: methods: got mine")
    assert (facts(folder)["status"], facts(folder)["reason"]) == ("complete", "")


def test_a_round_of_former_file_names_is_read(folder: RunFolder) -> None:
    group = replace(card("group.mlp"), profile=None, centroids_CF=None)
    state = replace(
        SystemState().admit((card("ann"),)),
        architecture_averages=(group,),
        rejections=(RejectedSource(by="ben", model_id="a" * 64, domain_id="ann", reason="shape"),),
    )
    folder.save_round(state, [], [])
    for name, former in (("architecture_averages", "groups"), ("rejections", "demotions")):
        path = folder.path / "rounds" / "0" / f"{name}.parquet"
        path.rename(path.with_name(f"{former}.parquet"))
    (folder.path / "rounds" / "0" / "round.json").unlink()  # it had none
    again = folder.load_state()
    assert [encode_card(each) for each in again.architecture_averages] == [encode_card(group)]
    assert again.rejections == state.rejections


def test_the_catalogue_can_be_read_by_people_too(folder: RunFolder) -> None:
    state = SystemState().admit((card("ben"), replace(card("ann", 1), architecture="gru")))
    folder.save_round(state, [], [])
    table = pq.read_table(folder.path / "rounds" / "0" / "catalogue.parquet")
    assert table["domain_id"].to_pylist() == ["ann", "ben"]
    assert table["architecture"].to_pylist() == ["gru", "mlp"]
    assert table["parents"].to_pylist() == [["a" * 64], []]


def test_no_write_leaves_a_partial_file(folder: RunFolder) -> None:
    folder.save_round(SystemState(round_index=1), [row("ann")], [entry("ann", 1)])
    folder.finish(1)
    assert list(folder.path.rglob("*.partial")) == []


def test_journal_bytes_grow_with_what_is_shipped_and_start_anew_each_round(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft_server.run_folder._LOOK_EVERY_S", 0.0)
    journal = JournalMeter(folder.journals / "ann.hat.jsonl")
    journal.record(entry("ann", 7))
    assert folder.journal_bytes() == 7
    journal.record(entry("ann", 30))
    with (folder.journals / "ann.hat.jsonl").open("ab") as file:
        file.write(b'{"run":"torn')  # a writer was killed here: no whole line, no bytes
    assert folder.journal_bytes() == 7 + 30
    journal.close()
    folder.journal_entries()
    assert folder.journal_bytes() == 0


def test_a_run_that_has_not_begun_has_not_failed(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "run").read_failure() == ""
