"""Which keys a real SuperLink takes, after a server that died and a device that was shut out."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from graft_server.deployment.enrolment import enrol_device, revoke_devices
from graft_server.flower.superlink import SuperLink, new_superlink
from graft_server.round_schedule import forget_node, read_nodes, write_node
from typer.testing import CliRunner

from graft.cli.main import app
from graft.data import ImuWorld, write_dataset
from graft.data.synthetic.imu import CHANNELS
from graft.errors import EdgeError

pytestmark = pytest.mark.slow
LIMIT_S = 180.0


@pytest.fixture
def superlink(tmp_path: Path) -> Iterator[SuperLink]:
    """A SuperLink that answers, of a deployment with ann and bob."""
    task = ImuWorld(2, 40, seed=0).task
    write_dataset(tmp_path / "data", task, channels=CHANNELS, rate_hz=None, licence="synthetic")
    words = ["deploy", "init", str(tmp_path / "field"), "--host", "127.0.0.1"]
    words += ["--device", "ann", "--device", "bob", "--dataset", str(tmp_path / "data")]
    assert CliRunner().invoke(app, words).exit_code == 0
    superlink = new_superlink(tmp_path / "field" / "server")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            superlink.command, env=superlink.environment, stdout=log, stderr=log
        )
    try:
        _wait_for_response(superlink)
        yield superlink
    finally:
        process.terminate()
        process.wait(60)


def _wait_for_response(superlink: SuperLink) -> None:
    until_s = time.monotonic() + LIMIT_S
    while True:
        try:
            superlink.nodes()
            return
        except EdgeError:
            assert time.monotonic() < until_s, "the SuperLink does not answer"
            time.sleep(1)


def test_keys_are_registered_once_whatever_died_and_refused_once_revoked(
    superlink: SuperLink,
) -> None:
    server = superlink.folder
    assert superlink.register_nodes() == ["ann", "bob"]
    assert superlink.register_nodes() == []
    nodes = read_nodes(server)
    # A server died when Flower had answered and before the answer was noted.
    forget_node(server, "ann")
    enrol_device(server.parent, "aaron")
    assert superlink.register_nodes() == ["aaron", "ann"]
    assert read_nodes(server) | nodes == read_nodes(server)

    revoke_devices(server, ["bob"])
    assert superlink.unregister_nodes() == ["bob"]
    assert sorted(superlink.nodes()) == ["aaron", "ann"]
    # Here it died before it could drop its own note.
    write_node(server, "bob", {"node_id": nodes["bob"]})
    assert superlink.unregister_nodes() == ["bob"]
    assert superlink.unregister_nodes() == []
