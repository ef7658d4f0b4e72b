"""Processes that a command keeps running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from graft.cli.deploy.processes import SupervisedProcess, until_stopped


def kept(folder: Path, program: str, news: list[str]) -> SupervisedProcess:
    return SupervisedProcess(
        name="child",
        command=[sys.executable, "-c", program],
        environment=os.environ,
        log_file=folder / "logs" / "child.log",
        announce=news.append,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_what_is_killed_is_started_again_after_a_growing_wait(tmp_path: Path) -> None:
    news: list[str] = []
    child = kept(tmp_path, "import time; print('up', flush=True); time.sleep(600)", news)
    child.keep_running()
    first = child.process
    assert first is not None
    first.kill()
    first.wait()
    died_s = time.monotonic()
    child.keep_running()
    assert child.process is None  # not at once: something that cannot run must not spin
    wait_for(lambda: child.keep_running() or child.process is not None)
    assert 1.5 < time.monotonic() - died_s < 6
    child.end()
    assert child.process is None
    assert [line.split(" (")[0] for line in news] == [
        "child started",
        "child ended",
        "child started",
    ]
    assert "(-9); again in 2 s" in news[1]


def test_what_it_says_is_kept(tmp_path: Path) -> None:
    child = kept(tmp_path, "print('what went wrong')", [])
    child.keep_running()
    assert child.process is not None
    child.process.wait()
    assert (tmp_path / "logs" / "child.log").read_text() == "what went wrong\n"


def test_one_that_ignores_the_request_to_end_is_killed(tmp_path: Path, monkeypatch: object) -> None:
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
    )
    child = kept(tmp_path, f"{program}; time.sleep(600)", [])
    child.keep_running()
    wait_for(lambda: (tmp_path / "logs" / "child.log").read_text() != "")
    process = child.process
    monkeypatch.setattr("graft.cli.deploy.processes._END_LIMIT_S", 0.2)  # type: ignore[attr-defined]
    child.end()
    assert process is not None
    assert process.poll() == -signal.SIGKILL


def test_children_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    program = f"""
import os, time
from pathlib import Path
from graft.cli.deploy.processes import SupervisedProcess
child = SupervisedProcess(name="child", command=["sleep", "600"], environment=os.environ,
             log_file=Path({str(tmp_path / "log")!r}), announce=lambda news: None)
child.keep_running()
print(child.process.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_sigterm_ends_the_wait() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with until_stopped() as wait:
        assert wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        assert not wait(30)
    assert signal.getsignal(signal.SIGTERM) == before
