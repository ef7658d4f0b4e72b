"""Forked workers: calls, deaths, and that none is left behind."""

import operator
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from graft_simulation.workers import Workers

from graft.errors import EdgeError

DIES_WITH_WORKERS = """
import os, signal, time
from graft_simulation.workers import Workers
workers = Workers(2, "time")
results = workers.run(time.sleep, [(60,), (0,)])
next(results)
print("running", flush=True)
time.sleep(60)
"""


def die_once(mark: str) -> str:
    """Kill this worker the first time."""
    if not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_each_call_has_its_result_and_workers_are_used_again() -> None:
    with Workers(2, "operator") as workers:
        assert dict(workers.run(operator.add, [(n, n) for n in range(5)])) == {
            n: 2 * n for n in range(5)
        }
        pids = {pid for _, pid in workers.run(os.getpid, [()] * 6)}
        assert 1 <= len(pids) <= 2
        assert os.getpid() not in pids
        assert pids == pids & {child.pid for child in family(os.getpid())}


def test_a_call_whose_worker_dies_runs_again_elsewhere(tmp_path: Path) -> None:
    with Workers(1, "operator") as workers:
        calls = [(str(tmp_path / name),) for name in "abc"]
        assert dict(workers.run(die_once, calls)) == {0: "done", 1: "done", 2: "done"}


def test_a_call_that_kills_every_worker_ends_the_run() -> None:
    with Workers(1, "operator") as workers, pytest.raises(EdgeError, match="its workers died"):
        list(workers.run(os._exit, [(1,)]))


def test_a_call_that_raises_ends_the_run_with_its_text() -> None:
    with Workers(1, "operator") as workers, pytest.raises(EdgeError, match="ZeroDivisionError"):
        list(workers.run(operator.truediv, [(1, 0)]))


def test_a_killed_template_is_started_again() -> None:
    with Workers(1, "operator") as workers:
        assert dict(workers.run(operator.add, [(1, 1)])) == {0: 2}
        for process in family(os.getpid()):
            if "graft_simulation.workers" in " ".join(process.cmdline()):
                process.kill()
        assert dict(workers.run(operator.add, [(1, 1)])) == {0: 2}


def test_workers_end_with_a_killed_run_in_the_middle_of_a_call() -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", DIES_WITH_WORKERS], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "running\n"
    workers = family(run.pid)
    assert len(workers) == 3
    run.kill()
    run.communicate()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
