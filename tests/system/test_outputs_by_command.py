"""Labels and amounts through both engines, a killed run and the pages of the real command."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import run_facts, wait_until
from several_outputs import write_waves

from graft.core.tables import read_table

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.mark.slow
@pytest.mark.parametrize("output", ["tags", "pulse"])
def test_both_engines_and_a_killed_run_give_one_result(
    tmp_path: Path, graft: Run, start_graft: Start, output: str
) -> None:
    write_waves(tmp_path / "world", people=8, rows=60)
    common = (
        "simulate", "--data", "world", "--rounds", "2", "--set", f"world.output={output}",
        "--set", "training.max_steps=12", "--set", 'comparisons=["label-only", "soft-kd", "hat"]',
    )  # fmt: skip
    flower = graft(*common, "--engine", "flower", "--out", "flower")
    assert flower.returncode == 0, flower.stdout + flower.stderr
    kind = "labels" if output == "tags" else "amount"
    assert f"they learn no {kind}: hat" in " ".join((flower.stdout + flower.stderr).split())
    block = (*common, "--engine", "block", "--no-stacked", "--out", "block")
    process = start_graft(*block)
    wait_until((tmp_path / "block" / "rounds" / "0").is_dir, "the end of round 0")
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    process.wait()
    resumed = graft("simulate", "--resume", "block")
    assert resumed.returncode == 0, resumed.stderr
    assert run_facts(tmp_path / "block")["hash"] == run_facts(tmp_path / "flower")["hash"]
    rows = read_table(tmp_path / "block" / "results.parquet").to_pylist()
    score = "mean_average_precision" if output == "tags" else "r2"
    assert all(row["error"] is None and row[score] is not None for row in rows)
    assert {row["method"] for row in rows} == {"initial", "graft", "label-only", "soft-kd"}
    for command in (("report", "block"), ("data", "check", "world")):
        done = graft(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "block" / "report.html").read_text("utf-8")
    assert ("mean macro-F1" if output == "tags" else "mean R\N{SUPERSCRIPT TWO}") in page
    assert "mean accuracy" not in page
    described = graft("world", "describe", "--data", "world", "--set", f"world.output={output}")
    assert described.returncode == 0, described.stdout + described.stderr
