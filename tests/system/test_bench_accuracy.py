"""``graft bench accuracy`` as a person types it, killed and gone on with."""

import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from commands import wait_until

from graft.bench.rows import read_benchmark_rows

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[bytes]"]

# One person of three is an initial domain: round(0.4 x 3) = 1; two are target domains.
TINY = (
    "bench", "accuracy", "--data", "imu", "--gamma", "0.1", "--gamma", "0.2", "--seeds", "1",
    "--targets", "2", "--set", "world.domains=3", "--set", "world.windows_per_domain=40",
    "--set", "training.max_steps=2", "--set", "policy.min_class_count=1",
    "--set", 'devices.architectures=["mlp"]', "--set", "selection.num_sources=1",
    "--out", "out", "--work", "work", "--main", "finetuned-any",
)  # fmt: skip
METHODS = ("--methods", "finetuned-any,label-only,all-labels")


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_goes_on(
    graft: Run, start_graft: Start, tmp_path: Path
) -> None:
    process = start_graft(*TINY, *METHODS)
    table = tmp_path / "out" / "rows.parquet"
    wait_until(table.exists, "the first rows")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(c.is_running() for c in children), "the workers to leave", 60)
    kept = read_benchmark_rows(table)
    done = graft(*TINY, *METHODS)
    assert done.returncode == 0, done.stderr
    rows = read_benchmark_rows(table)
    assert len(rows) == 12
    assert [row for row in rows if row.key in {r.key for r in kept}] == kept
    whole = graft(*TINY, *METHODS, "--out", "other", "--work", "other-work", "--workers", "1")
    assert whole.returncode == 0, whole.stderr
    others = read_benchmark_rows(tmp_path / "other" / "rows.parquet")
    assert [replace(row, device_s=None) for row in rows] == [
        replace(row, device_s=None) for row in others
    ]
