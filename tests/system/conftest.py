"""System tests run the real command in a process of its own, in an empty directory."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import GRAFT, LIMIT_S, SMALL, quiet_environment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process a file, so that its fixtures are made once; files that share a run, together."""
    for item in items:
        name = item.path.stem
        group = "reference" if name in ("test_simulate", "test_engines") else name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def graft(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run ``graft`` with arguments in tmp_path; gives the finished process."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [GRAFT, *arguments],
            cwd=tmp_path,
            env=quiet_environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    return run


@pytest.fixture
def start_graft(tmp_path: Path) -> "Iterator[Callable[..., subprocess.Popen[bytes]]]":
    """Start ``graft`` in a process group of its own, which ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [GRAFT, *arguments],
            cwd=tmp_path,
            env=quiet_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One uninterrupted run of Flower's engine with two workers; copy it before you resume it."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    done = subprocess.run(
        [GRAFT, *SMALL, "--out", folder, "--workers", "2"],
        cwd=folder.parent,
        env=quiet_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
