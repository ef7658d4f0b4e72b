"""A model of any size passes through depot and device in the same memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# A block of 256 Ki values with its codes, order and planes, the deflaters, gRPC's buffers and the
# allocator's slack come to 20 to 40 MB on either side, whatever the model's size.
BOUND_MB = 55.0


def run(*arguments: str) -> float:
    """Growth of the memory of a process that runs to its end, in MB."""
    done = subprocess.run(
        [sys.executable, HERE / "memory_process.py", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    return float(done.stdout)


def environment() -> dict[str, str]:
    paths = f"{HERE.parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    return dict(os.environ, PYTHONPATH=paths)


@pytest.mark.parametrize(
    "megabytes", [60, pytest.param(300, marks=pytest.mark.slow)], ids=lambda size: f"{size}MB"
)
def test_push_store_split_fetch_and_join_grow_by_less_than_the_bound(
    tmp_path: Path, megabytes: int
) -> None:
    depot = subprocess.Popen(
        [sys.executable, HERE / "memory_process.py", "depot", tmp_path, str(megabytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert depot.stdout is not None
        port = depot.stdout.readline().strip()
        grown_mb = {
            what: run(what, str(tmp_path), str(megabytes), port) for what in ("push", "fetch")
        }
        output, _ = depot.communicate(timeout=30)
        grown_mb["depot"] = float(output)
    finally:
        depot.kill()
        depot.wait(timeout=10)
    assert max(grown_mb.values()) < BOUND_MB < megabytes, grown_mb
