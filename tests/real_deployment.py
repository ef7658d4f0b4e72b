"""A deployment of real processes on loopback: its folders, and how its processes are started."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from commands import free_port, wait_until
from graft_server.flower.deployed_app import run_folder

LIMIT_S = 1500.0
INITIAL = ("user-000000", "user-000001")
TARGETS = ("user-000002", "user-000003", "user-000004")


class Site:
    """A deployment's folders, and its processes."""

    def __init__(
        self,
        path: Path,
        graft: Callable[..., "subprocess.CompletedProcess[str]"],
        start_graft: Callable[..., "subprocess.Popen[bytes]"],
    ) -> None:
        self.path, self.server = path, path / "field" / "server"
        self._run, self._start = graft, start_graft

    def set_up(self) -> None:
        assert self._run("deploy", "sample", "data", "--windows", "60").returncode == 0
        devices = [word for name in (*INITIAL, *TARGETS) for word in ("--device", name)]
        small = ["--set", "training.max_steps=10", "--set", "selection.num_sources=2"]
        ports = ["--flower-port", str(free_port()), "--depot-port", str(free_port())]
        words = ["--host", "127.0.0.1", "--dataset", f"data/{INITIAL[0]}"]
        done = self._run("deploy", "init", "field", *words, *devices, *small, *ports)
        assert done.returncode == 0, done.stderr
        initial = json.dumps(list(INITIAL))
        (self.server / "serve.toml").write_text(f"initial = {initial}\nretry_s = 10\n")

    def serve(self, *options: str) -> "subprocess.Popen[bytes]":
        words = ["deploy", "server", str(self.server), "--metrics-port", "0"]
        return self._start(*words, *options)

    def device(self, name: str) -> "subprocess.Popen[bytes]":
        folders = [f"field/devices/{name}", "--data", f"data/{name}"]
        return self._start("deploy", "device", *folders, "--port", str(free_port()))

    def models(self) -> set[str]:
        folder = run_folder(self.server)
        return {card.domain_id for card in folder.read_state().catalogue}

    def wait_for(self, *names: str) -> None:
        wait_until(lambda: set(names) <= self.models(), f"models of {names}", LIMIT_S)
