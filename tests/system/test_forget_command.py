"""``graft deploy forget`` in a deployment of real processes: nothing brings the domain back."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import wait_until
from graft_client.depot_client import GrpcLink, open_deployed_channel
from graft_server.flower.deployed_app import run_folder
from real_deployment import INITIAL, LIMIT_S, TARGETS, Site

from graft.core.deployment import read_device
from graft.core.tables import read_results
from graft.errors import GraftError, ModelMissingError

pytestmark = pytest.mark.slow


def holding(folder: Path, model_id: str) -> list[Path]:
    """Files that hold a model, or a part of one."""
    return [path for path in folder.rglob(f"*{model_id}*") if path.is_file()]


def test_a_forgotten_domain_leaves_server_and_devices_and_stays_away(
    tmp_path: Path,
    graft: Callable[..., "subprocess.CompletedProcess[str]"],
    start_graft: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    site, gone = Site(tmp_path, graft, start_graft), INITIAL[0]
    server, words = site.server, ("--server", str(site.server))
    site.set_up()
    serving = site.serve()
    devices = {name: site.device(name) for name in (*INITIAL, *TARGETS[:2])}
    for names in ((*INITIAL, "--initial"), TARGETS[:1]):
        assert start_graft("deploy", "expand", *names, *words).wait(LIMIT_S) == 0
    folder = run_folder(server)
    (own,) = [c.model_id for c in folder.read_state().catalogue if c.domain_id == gone]
    cache = site.path / "field" / "devices" / TARGETS[0] / "state" / "cache"
    assert holding(cache, own)
    payloads = {path: path.read_bytes() for path in holding(server, own)}
    backup = tmp_path / "backup"
    shutil.copytree(folder.path, backup)

    done = graft("deploy", "forget", gone, *words, "--descendants", "retrain")
    assert done.returncode == 0, done.stderr
    assert TARGETS[0] in done.stdout
    assert not holding(server, own)
    assert gone not in site.models()
    refused = graft("deploy", "expand", gone, *words)
    assert refused.returncode != 0
    assert gone in refused.stderr

    # Files of before, and a server that was killed.
    for path, content in payloads.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    os.killpg(serving.pid, signal.SIGKILL)
    serving.wait()
    shutil.rmtree(folder.path)
    shutil.copytree(backup, folder.path)
    serving = site.serve()
    os.killpg(devices[TARGETS[0]].pid, signal.SIGKILL)
    devices[TARGETS[0]].wait()
    site.device(TARGETS[0])
    # The next round serves a new domain, and the one again that had learnt from it.
    assert start_graft("deploy", "expand", TARGETS[1], *words).wait(LIMIT_S) == 0
    assert site.models() == {INITIAL[1], *TARGETS[:2]}
    assert not holding(server, own)
    wait_until(lambda: not holding(cache, own), "a cache without the model", LIMIT_S)
    rows = read_results(folder.path / "results.parquet")
    assert gone not in {row.domain_id for row in rows}
    # What was learnt before stays written down, as the ledger does; nothing learns from it since.
    assert not any(gone in row.source_domains for row in rows if row.round_index == 2)
    device = site.path / "field" / "devices" / TARGETS[1]
    address = read_device(device).depot
    with open_deployed_channel(address, device, insecure=False) as channel:
        link = GrpcLink(channel)
        assert not link.stores(own)
        with pytest.raises(ModelMissingError):
            list(link.read(own, "base", 0))
    device = site.path / "field" / "devices" / gone
    with (
        open_deployed_channel(address, device, insecure=False) as channel,
        pytest.raises(GraftError, match="does not serve it"),
    ):
        GrpcLink(channel).stores(own)
