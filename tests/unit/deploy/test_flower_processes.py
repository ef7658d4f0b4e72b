"""Flower's processes as forks: what is killed is started again, and an app when SuperExec asks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# In a process of its own: forks want a parent without threads.
PROGRAM = """
import json, os, sys, time
from pathlib import Path
from graft.cli.deploy import flower_processes
folder = Path(sys.argv[1])
def say(name, words=()):
    with (folder / name).open("a") as file:
        file.write(json.dumps([os.getpid(), *words]) + chr(10))
    time.sleep(600)
def execute(options, orders):
    orders.send(json.dumps(["--token", str(os.getpid())]).encode())
    say("superexec", options)
flower_processes.run_superexec = execute
processes = flower_processes.FlowerProcesses(
    "link", lambda: say("link"), "127.0.0.1:1", None, "app", lambda words: say("app", words),
    folder / "log",
)
while not (folder / "stop").exists():
    processes.look()
processes.end()
"""


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def pids(path: Path) -> list[int]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(line.strip("[]").split(",")[0]) for line in lines]


def lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
    except OSError:
        return False


def test_killed_processes_start_again_and_an_app_ends_with_its_link(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)])
    link, superexec, app = (tmp_path / name for name in ("link", "superexec", "app"))
    try:
        wait_for(lambda: bool(pids(app)))
        assert '["--insecure", "--runtime-api-address", "127.0.0.1:1"]'[1:] in superexec.read_text()
        os.kill(pids(superexec)[0], signal.SIGKILL)  # the app goes on
        wait_for(lambda: len(pids(app)) == 2)
        assert lives(pids(app)[0])
        os.kill(pids(link)[0], signal.SIGKILL)
        wait_for(lambda: len(pids(link)) == 2)
        assert not any(map(lives, pids(app)))
        assert lives(pids(superexec)[1])
        (tmp_path / "stop").touch()
        assert parent.wait(30) == 0
    finally:
        parent.kill()
        parent.wait()
    assert not any(map(lives, [*pids(link), *pids(superexec), *pids(app)]))


FORKS = """
import os, sys
from pathlib import Path
from graft.core.forked import ForkedProcess
from graft.errors import RunError
file = open(sys.argv[1] + "/file", "w")
def fail():
    print("before")
    try:
        os.fstat(file.fileno())
    except OSError:
        print("closed")
    print(open("/proc/self/comm").read().strip())
    raise RunError("x: got y, wanted z")
log = Path(sys.argv[1], "log")
sys.exit(ForkedProcess("a-name", fail, log).wait(20) + 10 * ForkedProcess("b", lambda: 3, log).wait(20))
"""


def test_a_fork_has_its_own_name_log_and_exit_code_and_no_file_of_its_parent(
    tmp_path: Path,
) -> None:
    done = subprocess.run([sys.executable, "-c", FORKS, str(tmp_path)], check=False)
    assert done.returncode == 31
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[:3] == ["before", "closed", "a-name"]
    assert lines[3].startswith("RunError: x: got y, wanted z")


LEFT = """
import os, signal, sys, time
from pathlib import Path
from graft.core.forked import ForkedProcess
print(ForkedProcess("left", lambda: time.sleep(600), Path(sys.argv[1], "log")).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_fork_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LEFT, str(tmp_path)], stdout=subprocess.PIPE)
    wait_for(lambda: not lives(int(done.stdout)))
