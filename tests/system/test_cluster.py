"""The block engine on a Ray cluster whose nodes share no disk, only a file server."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import SMALL, quiet_environment, run_facts, wait_until

Run = Callable[..., "subprocess.CompletedProcess[str]"]
RAY = Path(sys.executable).with_name("ray")
FILE_SERVER = """
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
people = DummyAuthorizer()
people.add_user("graft", "graft", sys.argv[1], perm="elradfmwMT")
FTPHandler.authorizer = people
FTPServer(("127.0.0.1", int(sys.argv[2])), FTPHandler).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def responses(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Start a program in a directory of its own, which is its home too, until the test ends."""
    started: list[subprocess.Popen[bytes]] = []

    def start_in(name: str, *command: str) -> None:
        home = tmp_path / name
        home.mkdir()
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=home,
                env={**quiet_environment(), "HOME": str(home)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)

    yield start_in
    for process in reversed(started):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.mark.slow
def test_a_node_with_a_directory_of_its_own_carries_every_block(
    start: Callable[..., None], graft: Run, tmp_path: Path
) -> None:
    files, cluster = free_port(), free_port()
    (tmp_path / "served").mkdir()
    start("files", sys.executable, "-c", FILE_SERVER, str(tmp_path / "served"), str(files))
    node = ("--disable-usage-stats", "--block", "--node-ip-address", "127.0.0.1")
    # The head has no processor to lend: whatever is computed, the second node computes.
    start(
        "head", str(RAY), "start", "--head", "--port", str(cluster), "--num-cpus", "0",
        "--include-dashboard", "false", *node,
    )  # fmt: skip
    wait_until(lambda: responses(cluster) and responses(files), "the cluster and the file server")
    start(
        "second", str(RAY), "start", "--address", f"127.0.0.1:{cluster}", "--num-cpus", "2", *node
    )

    here = graft(*SMALL, "--engine", "block", "--workers", "0", "--out", "here")
    assert here.returncode == 0, here.stderr
    address = f"ftp://graft:graft@127.0.0.1:{files}/run"
    there = graft(
        *SMALL, "--engine", "block", "--ray-address", f"127.0.0.1:{cluster}", "--out", address
    )
    assert there.returncode == 0, there.stderr
    assert run_facts(tmp_path / "served" / "run")["hash"] == run_facts(tmp_path / "here")["hash"]
    # Reports are read from there as well.
    again = graft("report", address, "--format", "json")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "served" / "run" / "report.html").stat().st_size > 0
