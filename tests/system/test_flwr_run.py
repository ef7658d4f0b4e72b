"""``flwr run .``: Flower's own command, its app bundle, and the model depot over gRPC."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from commands import GRAFT, LIMIT_S, quiet_environment, run_facts

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"rounds": 1, "world.domains": 6, "training.max_steps": 8}
pytestmark = pytest.mark.slow


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Run ``flwr run`` on a copy of the project with a SuperLink of its own; gives the run folder."""
    app = tmp_path / "app"
    shutil.copytree(
        ROOT, app, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "tests", "__pycache__")
    )
    home = tmp_path / "home"
    environment = quiet_environment() | {
        "HOME": str(home),
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        # Flower would join, and wait for, the last cluster that any ``ray start`` left here.
        "RAY_ADDRESS": "local",
        "PATH": f"{GRAFT.parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(nodes: int, **settings: object) -> Path:
        folder = tmp_path / "run"
        chosen = {"run-folder": f"'{folder}'", **SETTINGS, **settings}
        subprocess.run(
            [
                GRAFT.with_name("flwr"), "run", ".", "--stream", "--run-config",
                " ".join(f"{key}={value}" for key, value in chosen.items()),
                "--federation-config", f"num-supernodes={nodes} client-resources-num-cpus=1",
            ],
            cwd=app,
            env=environment,
            check=False,  # it exits 0 even when the app failed: the run folder tells
            capture_output=True,
            timeout=LIMIT_S,
        )  # fmt: skip
        return folder

    yield run
    # The SuperLink that ``flwr run`` started keeps running: whatever has our home is ours.
    for process in psutil.process_iter():
        try:
            if process.environ().get("FLWR_HOME") == str(home / "flwr"):
                process.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_flwr_run_gives_the_hash_of_graft_simulate(
    flower: Callable[..., Path], graft: Callable[..., "subprocess.CompletedProcess[str]"],
    tmp_path: Path,
) -> None:  # fmt: skip
    facts = run_facts(flower(6))
    assert facts["status"] == "complete", facts
    done = graft(
        "simulate", "--domains", "6", "--rounds", "1", "--set", "training.max_steps=8",
        "--out", "simulated",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # One path has the depot's gRPC between device and store, the other a folder.
    assert run_facts(tmp_path / "simulated")["hash"] == facts["hash"]


def test_fewer_nodes_than_domains_fail_the_run_by_name(flower: Callable[..., Path]) -> None:
    facts = run_facts(flower(3, **{"join-timeout-s": 40.0}))
    assert facts["status"] == "failed"
    assert "NodesMissingError: nodes: got 3 of 6" in str(facts["reason"])
