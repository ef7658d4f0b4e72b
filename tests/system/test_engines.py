"""Two engines, one result: Flower's and the block engine on the same world, killed or not."""

import os
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import SMALL, run_facts, wait_until
from graft_server.round_loop import RunSettings
from graft_server.run_folder import RunFolder
from graft_simulation.block.engine import run_block_engine
from graft_simulation.engines import Engine, EngineSettings

from graft.core.config_files import config_from_dict
from graft.core.records import LedgerEntry
from graft.core.tables import read_ledger, read_results
from graft.data.worlds import open_world

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[bytes]"]
BLOCK = (*SMALL, "--engine", "block")


def blocks(reference: Path, out: Path, **settings: object) -> str:
    """The reference's run through the block engine in this process; gives its hash."""
    config = config_from_dict(run_tables(reference)["config"])
    world = open_world(config.world, config.seed)
    folder = RunFolder(out)
    recorded = EngineSettings(
        engine=Engine.BLOCK, stacked=bool(settings.get("stacked", True))
    ).recorded()
    folder.begin(config, world, recorded)
    run = RunSettings(config=config, world=world, folder=folder)
    return run_block_engine(run, **settings)  # type: ignore[arg-type]


def run_tables(run: Path) -> dict[str, dict[str, object]]:
    return tomllib.loads((run / "run.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def stacked(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The block engine's run, in this process."""
    out = tmp_path_factory.mktemp("stacked") / "run"
    blocks(reference, out, workers=0)
    return out


def test_with_every_model_trained_alone_the_hash_is_flowers(
    reference: Path, tmp_path: Path
) -> None:
    digest = blocks(reference, tmp_path / "run", workers=0, stacked=False)
    assert digest == run_facts(reference)["hash"]


def test_side_by_side_selections_and_ledger_are_flowers_and_accuracies_near(
    reference: Path, stacked: Path
) -> None:
    for row, same in zip(
        read_results(reference / "results.parquet"),
        read_results(stacked / "results.parquet"),
        strict=True,
    ):
        assert (row.domain_id, row.method, row.round_index) == (
            same.domain_id,
            same.method,
            same.round_index,
        )
        assert (row.architecture, row.source_domains) == (same.architecture, same.source_domains)
        assert row.accuracy is not None
        assert row.accuracy == pytest.approx(same.accuracy, abs=0.1)
    ledgers = [read_ledger(run / "ledger.parquet") for run in (reference, stacked)]
    assert [kind(e) for e in ledgers[0]] == [kind(e) for e in ledgers[1]]
    for entry, same_entry in zip(*ledgers, strict=True):
        # A part is compressed: other last bits of a weight are other bytes, within a hundredth.
        part = entry.message.startswith("payload.") and entry.message != "payload.stored"
        slack = 0.01 * entry.payload_bytes + 8 if part else 0
        assert abs(entry.payload_bytes - same_entry.payload_bytes) <= slack


def kind(entry: LedgerEntry) -> tuple[object, ...]:
    return (
        entry.round_index, entry.domain_id, entry.method, entry.phase, entry.message,
        entry.sender, entry.receiver, entry.attempt, entry.cached, entry.outcome,
    )  # fmt: skip


# The killed run below begins with two workers and ends with one.
@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 4]
)
def test_the_number_of_workers_never_changes_the_result(
    reference: Path, stacked: Path, tmp_path: Path, workers: int
) -> None:
    digest = blocks(reference, tmp_path / "run", workers=workers)
    assert digest == run_facts(stacked)["hash"]
    assert not (tmp_path / "run" / "steps").exists()


def test_a_killed_run_goes_on_from_its_blocks_to_the_same_end(
    stacked: Path, start_graft: Start, graft: Run, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start_graft(*BLOCK, "--workers", "2", "--out", "run")
    steps = run / "steps"
    closed = run / "rounds" / "0" / "round.json"

    def has_block_of_round_1() -> bool:
        # Blocks of round 0 stay until just after its marker is written.
        return closed.exists() and any(
            path.stat().st_mtime > closed.stat().st_mtime for path in steps.glob("*")
        )

    wait_until(has_block_of_round_1, "a finished block of round 1")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = len(list(steps.iterdir()))
    assert kept
    done = graft("simulate", "--resume", "run", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "round 0" not in done.stderr
    assert run_facts(run)["hash"] == run_facts(stacked)["hash"]


def test_a_last_round_that_was_cut_off_is_run_again(stacked: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(stacked, copy)
    last = max((copy / "rounds").iterdir(), key=lambda path: int(path.name))
    (last / "results.parquet").unlink()
    folder = RunFolder(copy)
    config = folder.resume()
    world = open_world(config.world, config.seed)
    digest = run_block_engine(RunSettings(config=config, world=world, folder=folder), workers=0)
    assert digest == run_facts(stacked)["hash"]


@pytest.mark.slow
def test_growth_rounds_have_the_same_hash_in_both_engines(graft: Run, tmp_path: Path) -> None:
    growth = ("--set", 'growth.classes=["row"]', "--set", "growth.round=1")
    arguments = (*SMALL, *growth, "--set", 'growth.comparisons=["lwf", "ewc", "naive", "joint"]')
    hashes = []
    for engine in (("--engine", "flower"), ("--engine", "block", "--no-stacked")):
        (tmp_path / engine[1]).mkdir()
        graft(*arguments, *engine, "--out", f"{engine[1]}/run")
        hashes.append(run_facts(tmp_path / engine[1] / "run")["hash"])
    assert hashes[0] == hashes[1]
    rows = read_results(tmp_path / "flower" / "run" / "results.parquet")
    assert {row.method for row in rows if row.is_growth} == {
        "grow-had", "grow-lwf", "grow-ewc", "grow-naive", "grow-joint"
    }  # fmt: skip
