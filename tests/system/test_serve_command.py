"""A deployment that serves as they come: real processes on loopback, killed in the middle."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import free_port, wait_until
from graft_server.flower.deployed_app import run_folder
from graft_server.round_schedule import read_rounds
from graft_server.serving.planner import read_serving

from graft.core.ledger import read_ledger
from graft.core.results import read_results

pytestmark = pytest.mark.slow
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
        self._metrics = str(free_port())

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

    def serve(self) -> "subprocess.Popen[bytes]":
        return self._start("deploy", "server", str(self.server), "--serve", "--metrics-port", "0")

    def device(self, name: str) -> None:
        folders = [f"field/devices/{name}", "--data", f"data/{name}"]
        self._start("deploy", "device", *folders, "--port", str(free_port()))

    def models(self) -> set[str]:
        folder = run_folder(self.server)
        return {card.domain_id for card in folder.read_state().catalogue}

    def wait_for(self, *names: str) -> None:
        wait_until(lambda: set(names) <= self.models(), f"models of {names}", LIMIT_S)


def test_devices_are_served_as_they_come_whatever_is_killed(
    tmp_path: Path,
    graft: Callable[..., "subprocess.CompletedProcess[str]"],
    start_graft: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    site = Site(tmp_path, graft, start_graft)
    site.set_up()
    server = site.serve()
    for name in INITIAL:
        site.device(name)
    site.wait_for(*INITIAL)  # nobody has pressed a button
    for name in TARGETS[:2]:
        site.device(name)

    def is_open(name: str) -> bool:
        return name in {each.domain_id for each in read_serving(site.server).open}

    wait_until(lambda: any(map(is_open, TARGETS)), "a device that is served", LIMIT_S)
    time.sleep(2)
    os.killpg(server.pid, signal.SIGKILL)
    server = site.serve()
    site.wait_for(*TARGETS[:2])
    status = graft("deploy", "status", "--server", str(site.server), "--format", "json")
    assert status.returncode == 0, status.stderr
    # A command's round beside a server that serves.
    quiet = (site.server / "serve.toml").read_text() + 'quiet = ["00:00-24:00"]\n'
    (site.server / "serve.toml").write_text(quiet)
    site.device(TARGETS[2])
    done = graft("deploy", "expand", TARGETS[2], "--server", str(site.server))
    assert done.returncode == 0, done.stderr

    rounds = read_rounds(site.server)
    assert rounds[0] == INITIAL
    assert sorted(rounds[1:3]) == [(name,) for name in TARGETS[:2]]
    assert rounds[3:] == ((TARGETS[2],),)
    folder = run_folder(site.server).path
    rows = read_results(folder / "results.parquet")
    assert sorted(row.domain_id for row in rows) == [*INITIAL, *TARGETS]
    assert not any(row.error for row in rows)
    entries = read_ledger(folder / "ledger.parquet")
    delivered = [e for e in entries if e.phase == "register" and e.outcome == "ok" and not e.cached]
    exact = [e for e in delivered if e.message == "payload.exact"]
    assert len({(e.domain_id, e.round_index) for e in exact}) == len(exact)
    assert {e.domain_id for e in delivered} == {*INITIAL, *TARGETS}
