"""A deployment's gauges: read from its folder, served while a block lasts."""

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from graft_server.deployment.authority import certificate_ends, create_authority
from graft_server.observability.metrics import DeploymentMetrics, serve_metrics
from prometheus_client import CollectorRegistry

from graft.core.deployment import ServerSettings, write_server
from graft.errors import EdgeError


@pytest.fixture
def server(tmp_path: Path) -> Path:
    write_server(tmp_path, ServerSettings(run="run", host="here"))
    (tmp_path / "nodes").mkdir()
    for name in ("ann", "bob", "eve"):
        (tmp_path / "nodes" / f"{name}.pub").touch()
    (tmp_path / "rounds.json").write_text(json.dumps([["ann", "bob"]]))
    return tmp_path


def samples(metrics: DeploymentMetrics) -> dict[str, float]:
    return {s.name: s.value for family in metrics.collect() for s in family.samples}


def test_who_is_online_is_what_flower_says(server: Path) -> None:
    metrics = DeploymentMetrics(server, lambda: {"ann": "online", "bob": "offline"})
    assert samples(metrics)["graft_superlink_up"] == 0  # nobody asked Flower yet
    metrics.look()
    found = samples(metrics)
    assert found == {
        "graft_superlink_up": 1, "graft_devices_enrolled": 3, "graft_devices_online": 1,
        "graft_rounds_planned": 1, "graft_rounds_finished": 0, "graft_catalogue_models": 0,
    }  # fmt: skip


def test_the_end_of_each_certificate_is_a_metric(server: Path) -> None:
    create_authority(server).server_identity(["127.0.0.1"]).write(server)
    wanted = {name: end.timestamp() for name, end in certificate_ends(server).items()}
    assert set(wanted) == {"ca", "server"}
    families = {family.name: family for family in DeploymentMetrics(server, dict).collect()}
    found = families["graft_certificate_expires"].samples
    assert {s.labels["certificate"]: s.value for s in found} == wanted
    assert all(end > time.time() for end in wanted.values())


def test_a_superlink_that_stops_answering_has_no_devices(server: Path) -> None:
    responses = [{"ann": "online"}]

    def nodes() -> dict[str, str]:
        if not responses:
            raise EdgeError("gone")
        return responses.pop()

    metrics = DeploymentMetrics(server, nodes)
    metrics.look()
    assert samples(metrics)["graft_devices_online"] == 1
    metrics.look()
    found = samples(metrics)
    assert (found["graft_superlink_up"], found["graft_devices_online"]) == (0, 0)


def test_progress_is_the_stages_own(server: Path) -> None:
    told = {"round": 0, "phase": "probe", "done": 1, "wanted": 2, "payload_bytes": 345}
    (server / "state").mkdir()
    (server / "state" / "progress.json").write_text(json.dumps(told))
    found = samples(DeploymentMetrics(server, dict))
    assert (found["graft_stage_responses"], found["graft_stage_requests"]) == (1, 2)
    assert found["graft_round_payload_bytes"] == 345


def test_metrics_are_served_while_the_block_lasts(server: Path) -> None:
    registry = CollectorRegistry()
    registry.register(DeploymentMetrics(server, dict))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/metrics"
    with serve_metrics("127.0.0.1", port, registry, pytest.fail):
        with urllib.request.urlopen(address) as response:
            assert b"graft_devices_enrolled 3.0" in response.read()
        told: list[str] = []
        with serve_metrics("127.0.0.1", port, registry, told.append):
            assert told[0].startswith(f"no metrics: 127.0.0.1:{port}")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address)


def test_port_0_serves_nothing() -> None:
    with serve_metrics("127.0.0.1", 0, CollectorRegistry(), pytest.fail):
        pass
