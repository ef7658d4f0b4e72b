"""Other users of a machine cannot reach Flower's own ports, at which it asks for no key."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import free_port, quiet_environment, wait_until
from graft_server.flower.superlink import new_superlink

from graft.core.deployment import ServerSettings, write_server

NOBODY = 65534
START_RUN, TAKE_TASK = "/v1/control/start-run", "/v1/runtime/acquire-task"
Start = Callable[..., Path]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="only root can become another user"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program until the test ends; gives its log."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*command: str, **variables: str) -> Path:
        log = tmp_path / "log"
        with log.open("wb") as file:
            environment = quiet_environment() | variables
            process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        started.append(process)
        return log

    yield run
    for process in started:
        process.terminate()
        process.wait(20)


def answer_to(user: int, port: int, path: str) -> bytes:
    """The first bytes that a user's request is answered with; "closed" where it is not."""
    reading, writing = os.pipe()
    "127.0.0.1".encode("idna")  # nobody may not read Python's own files, where they are root's
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setuid(user)
            with socket.socket() as line:
                line.settimeout(10)
                line.connect(("127.0.0.1", port))
                head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n"
                line.sendall(head.encode())
                try:
                    os.write(writing, line.recv(12) or b"closed")
                except ConnectionResetError:
                    os.write(writing, b"closed")
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as file:
        return file.read()


def is_open(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def test_nobody_starts_a_run_at_the_superlink(tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "server"
    write_server(folder, ServerSettings(run="run-1", host="here", insecure=True))
    superlink = new_superlink(folder)
    start(*superlink.command, **superlink.environment)
    wait_until(lambda: is_open(superlink.port), "the SuperLink")
    assert answer_to(NOBODY, superlink.port, START_RUN) == b"closed"
    assert answer_to(0, superlink.port, START_RUN).startswith(b"HTTP/1.1")
    assert answer_to(NOBODY, superlink.port, START_RUN) == b"closed"
    log = (folder / "state" / "superlink.log").read_text("utf-8")
    assert log.count("SuperLink: connection of user 65534 refused") == 1


def test_nobody_takes_a_task_from_a_supernode(start: Start) -> None:
    port = free_port()
    start(
        sys.executable, "-P", "-m", "graft_client.supernode", "0" * 64, "--insecure",
        "--superlink", f"127.0.0.1:{free_port()}", "--port", str(port),
    )  # fmt: skip
    wait_until(lambda: is_open(port), "the SuperNode")
    assert answer_to(NOBODY, port, TAKE_TASK) == b"closed"
    assert answer_to(0, port, TAKE_TASK).startswith(b"HTTP/1.1")
