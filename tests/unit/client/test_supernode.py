"""A SuperNode that is held to one app bundle."""

import hashlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supernode import fleet_http_connection
from graft_client import supernode
from graft_server.deployment.authority import create_authority
from graft_server.deployment.reverse_proxy import ReverseProxy

# Flower's module is changed for the whole process, so each case has one of its own.
PROGRAM = """
import hashlib, sys
from flwr.supercore.run import RunNotRunningException
from graft_client import supernode as node
node.supernode.get_fused_config_from_fab = lambda content, run: {"taken": len(content)}
node.hold_to_bundle(sys.argv[1])
try:
    print(node.supernode.get_fused_config_from_fab(sys.argv[2].encode(), None))
except RunNotRunningException:
    print("ignored")
"""


def told(bundle: bytes, sent: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, hashlib.sha256(bundle).hexdigest(), sent],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


WITHOUT_THE_SEAM = """
import sys
from graft_client import supernode as node
def pull(message): ...
node.supernode._pull_and_store_message = pull
sys.argv = ["supernode", "0" * 64]
node.main()
"""


def test_a_flower_whose_bundles_pass_elsewhere_is_refused_with_its_version() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_THE_SEAM], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"EdgeError: SuperNode: got flwr {version('flwr')}, whose")
    assert done.stderr.count("\n") == 1


def test_the_bundle_that_it_was_enrolled_with_is_run() -> None:
    assert told(b"ours", "ours") == "{'taken': 4}"


def test_messages_of_any_other_bundle_are_ignored() -> None:
    assert told(b"ours", "0urs") == "ignored"


def test_the_supernode_shows_its_devices_certificate_and_a_renewed_one_without_a_restart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = create_authority(tmp_path / "ca")
    authority.server_identity(["127.0.0.1"]).write(tmp_path / "server")
    for folder in ("server", "device"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "ca.pem").write_bytes(authority.certificate_pem)
    shown: list[str] = []
    monkeypatch.setattr(
        fleet_http_connection, "FleetHttpClient", fleet_http_connection.FleetHttpClient
    )
    supernode.present_certificate(tmp_path / "device")
    with ReverseProxy(
        1, tmp_path / "server", allows=lambda name: shown.append(name) is None
    ) as gateway:
        client = fleet_http_connection.FleetHttpClient.from_server_address(
            f"127.0.0.1:{gateway.port}", False, (tmp_path / "device" / "ca.pem").read_bytes(), ()
        )
        for name in ("ann", "ann-renewed"):
            authority.device_identity(name).write(tmp_path / "device")
            with pytest.raises(httpx.HTTPStatusError, match="503"):
                client.GetRun(GetRunRequest())
            client._client._transport.close()  # the next request connects again
    assert shown == ["ann", "ann-renewed"]
