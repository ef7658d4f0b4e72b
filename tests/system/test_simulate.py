"""``graft simulate`` as a person types it: through Flower, Ray and real files."""

import json
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from commands import SMALL, run_facts, wait_until
from graft_server.round_loop import RunSettings, run_rounds
from graft_server.run_folder import RunFolder
from graft_simulation.in_process import connect_in_process

from graft.core.ledger import is_upload
from graft.core.results import run_hash
from graft.core.tables import read_ledger, read_results
from graft.data import ImuWorld, write_dataset, write_domain
from graft.data.synthetic.imu import CHANNELS, RATE_HZ
from graft.data.worlds import open_world
from graft.wire.messages.card_signature import verify_card
from graft.wire.messages.codec import decode_card

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[bytes]"]


def test_a_run_serves_every_target_by_every_method(reference: Path) -> None:
    rows = read_results(reference / "results.parquet")
    # Of 11 domains round(0.4 * 11) = 4 are initial domains; the other 7 are served by 3 methods each.
    initial_domains = [row for row in rows if row.round_index == 0]
    assert len(initial_domains) == 4
    assert len(rows) - len(initial_domains) == 7 * 3
    assert not [row.error for row in rows if row.error]
    assert run_facts(reference)["status"] == "complete"


def test_the_edge_inside_one_process_gives_the_same_rows_and_bytes(
    reference: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    config = RunFolder(shutil.copytree(reference, tmp_path / "held")).resume()
    world = open_world(config.world, config.seed)
    folder.begin(config, world)
    settings = RunSettings(config=config, world=world, folder=folder)
    run_rounds(connect_in_process(settings), settings)
    rows = read_results(folder.path / "results.parquet")
    entries = read_ledger(folder.path / "ledger.parquet")
    # Over Flower the domains join first; nobody joins inside one process.
    spoken = [e for e in read_ledger(reference / "ledger.parquet") if e.phase != "join"]
    assert len(entries) == len(spoken)
    assert run_hash(rows, entries) == run_hash(read_results(reference / "results.parquet"), spoken)


def test_the_ledger_holds_what_the_files_weigh(reference: Path) -> None:
    entries = read_ledger(reference / "ledger.parquet")
    models = {path.stem for path in (reference / "models").glob("*.safetensors")}
    sizes = {
        part: sum((reference / "models" / f"{name}.{part}").stat().st_size for name in models)
        for part in ("base", "residual")
    }
    pushed = [e for e in entries if e.phase == "register" and is_upload(e)]
    # Every model in the store was pushed once, in two parts, and weighs what was charged.
    assert len(models) == 11
    for part, size in sizes.items():
        assert sum(e.payload_bytes for e in pushed if e.message == f"payload.{part}") == size
    # No source model travels for label-only.
    assert not [e for e in entries if e.method == "label-only" and e.sender == "depot"]


def test_every_admitted_card_is_signed_by_the_run(reference: Path) -> None:
    public_key = (reference / "keys" / "server.pub").read_bytes()
    paths = sorted(reference.glob("rounds/*/catalogue.parquet"))
    rows = [row for path in paths for row in pq.read_table(path)["card"].to_pylist()]
    cards = [decode_card(row) for row in rows]
    assert len(cards) == 11
    for card in cards:
        verify_card(reference.name, card, public_key)


def test_what_was_probed_is_not_shipped_again(reference: Path) -> None:
    """The main method learns from the bases it probed: each is held, and nothing more comes."""
    entries = [e for e in read_ledger(reference / "ledger.parquet") if e.method == "graft"]
    from_depot = [e for e in entries if e.sender == "depot"]
    bases = [e for e in from_depot if e.message == "payload.base"]
    assert {e.message for e in from_depot} == {"payload.base", "payload.stored"}
    again = [e for e in bases if e.cached]
    assert again
    assert all(e.payload_bytes == 0 for e in again)
    probed = Counter(e.receiver for e in bases if not e.cached)
    soft_targets = Counter(e.receiver for e in again)
    assert probed.keys() == soft_targets.keys()
    assert all(soft_targets[receiver] <= probed[receiver] for receiver in probed)


def simulated_times(folder: Path) -> list[object]:
    """All that the simulated clock says of a run; nothing in it is None."""
    rows = read_results(folder / "results.parquet")
    entries = read_ledger(folder / "ledger.parquet")
    times = [(row.link_class, row.simulated_compute_s, row.simulated_s) for row in rows]
    assert all(None not in each for each in times)
    seconds = [entry.simulated_s for entry in entries]
    assert None not in seconds
    return [times, seconds]


@pytest.mark.slow  # test_engines.py has four workers in the quick suite
@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_nothing(
    workers: int, reference: Path, graft: Run, tmp_path: Path
) -> None:
    done = graft(*SMALL, "--out", "again", "--workers", str(workers), "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"]["hash"] == run_facts(reference)["hash"]
    assert simulated_times(tmp_path / "again") == simulated_times(reference)


def test_a_killed_run_resumes_to_the_same_hash(
    reference: Path, start_graft: Start, graft: Run, tmp_path: Path
) -> None:
    process = start_graft(*SMALL, "--out", "run")
    wait_until((tmp_path / "run" / "rounds" / "0").is_dir, "the end of round 0")
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    process.wait()
    assert run_facts(tmp_path / "run")["status"] == "running"
    done = graft("simulate", "--resume", "run")
    assert done.returncode == 0, done.stderr
    assert run_facts(tmp_path / "run")["hash"] == run_facts(reference)["hash"]


def test_a_dead_actor_is_a_named_failure_and_not_a_smaller_mean(
    start_graft: Start, tmp_path: Path
) -> None:
    process = start_graft(*SMALL, "--out", "run", "--workers", "1")

    def actors() -> list[psutil.Process]:
        children = psutil.Process(process.pid).children(recursive=True)
        return [c for c in children if "ClientAppActor" in " ".join(c.cmdline())]

    wait_until((tmp_path / "run" / "rounds" / "0").is_dir, "the end of round 0")
    for actor in actors():
        actor.kill()
    output = process.communicate(timeout=240)[0].decode()
    assert process.returncode == 1, output
    assert "Error" in output
    rows = read_results(tmp_path / "run" / "results.parquet")
    failed = [row for row in rows if row.error]
    assert failed
    assert all(row.accuracy is None for row in failed)
    assert run_facts(tmp_path / "run")["status"] == "failed"


def test_a_bad_domain_fails_by_name_and_keeps_its_ledger_rows(graft: Run, tmp_path: Path) -> None:
    world = ImuWorld(8, 60, 3)
    folder = tmp_path / "people"
    write_dataset(
        folder, world.task, channels=CHANNELS, rate_hz=RATE_HZ, licence="synthetic", persons={}
    )
    for domain_id in world.domain_ids:
        write_domain(folder, world.load(domain_id))
    bad = folder / "domains" / "user-000002.npz"
    with np.load(bad) as arrays:
        spoiled = dict(arrays)
    spoiled["x"][5, 0, 0] = np.nan
    np.savez(bad, **spoiled)
    done = graft(
        "simulate", "--data", "people", "--rounds", "1", "--out", "run",
        "--set", "training.max_steps=8", "--set", 'comparisons=["label-only"]',
    )  # fmt: skip
    assert done.returncode == 1
    assert "user-000002" in done.stderr
    assert "DomainValueError" in done.stderr
    rows = read_results(tmp_path / "run" / "results.parquet")
    assert {row.domain_id for row in rows if row.error} == {"user-000002"}
    assert len({row.domain_id for row in rows if not row.error}) == 7
    entries = read_ledger(tmp_path / "run" / "ledger.parquet")
    spent = [e for e in entries if e.domain_id == "user-000002" and e.payload_bytes]
    assert spent
    assert "user-000002" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_domains_that_drop_out_fail_by_name_and_the_rest_is_served(
    graft: Run, tmp_path: Path
) -> None:
    block = ("--engine", "block", "--workers", "0")
    done = graft(*SMALL, *block, "--out", "run", "--set", "network.dropout_rate=0.4")
    assert done.returncode == 1
    assert "DomainLostError" in done.stderr
    rows = read_results(tmp_path / "run" / "results.parquet")
    lost = {row.domain_id for row in rows if row.error == "DomainLostError"}
    assert 0 < len(lost) < 11
    assert any(row.error is None and row.round_index >= 1 for row in rows)
    entries = read_ledger(tmp_path / "run" / "ledger.parquet")
    silent = [entry for entry in entries if entry.outcome == "lost"]
    assert {entry.domain_id for entry in silent} == lost
    assert {entry.simulated_s for entry in silent} == {None}
    assert all(entry.simulated_s is not None for entry in entries if entry.outcome == "ok")


@pytest.mark.slow
def test_foreign_modules_in_the_current_directory_are_not_imported(
    graft: Run, reference: Path, tmp_path: Path
) -> None:
    for name in ("server", "client", "simulation", "graft"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the wrong {name}')\n", "utf-8")
    done = graft(*SMALL, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert run_facts(tmp_path / "run")["hash"] == run_facts(reference)["hash"]


def test_the_report_is_made_again_from_the_folder_alone(
    reference: Path, graft: Run, tmp_path: Path
) -> None:
    copy = tmp_path / "moved"
    shutil.copytree(reference, copy)
    before = (copy / "report.html").read_text("utf-8")
    (copy / "report.html").unlink()
    done = graft("report", "moved", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert (copy / "report.html").read_text("utf-8") == before
    rows, entries = read_results(copy / "results.parquet"), read_ledger(copy / "ledger.parquet")
    assert json.loads(done.stdout)["run"]["hash"] == run_hash(rows, entries)


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        (("--set", "selection.num_sorces=3"), "ConfigError", "num_sorces"),
        (("--set", "split.gamma=2.0"), "ConfigError", "split.gamma"),
        (("--method", "magic"), "ConfigError", "magic"),
        (("--set", 'devices.architectures=["vit"]'), "ArchitectureError", "vit"),
        (("--data", "nowhere"), "DatasetFormatError", "nowhere"),
        (("--resume", "nowhere"), "RunError", "nowhere"),
    ],
)
def test_bad_input_is_one_line_that_names_it(
    arguments: tuple[str, ...], error: str, named: str, graft: Run
) -> None:
    done = graft("simulate", *arguments)
    assert done.returncode == 1
    assert error in done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
