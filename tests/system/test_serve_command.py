"""A deployment that serves as they come: real processes on loopback, killed in the middle."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import wait_until
from graft_server.flower.deployed_app import run_folder
from graft_server.round_schedule import read_rounds
from graft_server.serving.planner import read_serving
from real_deployment import INITIAL, LIMIT_S, TARGETS, Site

from graft.core.tables import read_ledger, read_results

pytestmark = pytest.mark.slow


def test_devices_are_served_as_they_come_whatever_is_killed(
    tmp_path: Path,
    graft: Callable[..., "subprocess.CompletedProcess[str]"],
    start_graft: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    site = Site(tmp_path, graft, start_graft)
    site.set_up()
    server = site.serve("--serve")
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
    server = site.serve("--serve")
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
