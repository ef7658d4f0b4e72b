"""``graft deploy health``: what the depot's health service says, as an exit code."""

import socket
from pathlib import Path

from graft_server.deployment.enrolment import create_deployment
from graft_server.depot.server import DepotServer, tls_credentials
from graft_server.model_store import open_store
from typer.testing import CliRunner

from graft.cli.main import app
from graft.core.config import ExpansionConfig
from graft.data import ImuWorld, write_dataset
from graft.data.synthetic.imu import CHANNELS

runner = CliRunner()


def test_health_is_the_depots_own_word_over_tls(tmp_path: Path) -> None:
    task = ImuWorld(2, 40, seed=0).task
    write_dataset(tmp_path, task, channels=CHANNELS, rate_hz=None, licence="synthetic")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    create_deployment(
        tmp_path / "field",
        host="server.example",
        dataset=tmp_path,
        config=ExpansionConfig(),
        flower_port=1,
        depot_port=port,
    )
    server = tmp_path / "field" / "server"
    silent = runner.invoke(app, ["deploy", "health", str(server)])
    assert (silent.exit_code, silent.stdout.split()[1:]) == (1, ["does", "not", "answer"])
    credentials = tls_credentials(
        key_pem=(server / "tls.key").read_bytes(),
        certificate_pem=(server / "tls.pem").read_bytes(),
        client_ca_pem=(server / "ca.pem").read_bytes(),
    )
    store = open_store(tmp_path / "models", task)
    with DepotServer(store, f"127.0.0.1:{port}", credentials=credentials):
        well = runner.invoke(app, ["deploy", "health", str(server)])
    assert (well.exit_code, well.stdout.split()[1:]) == (0, ["answers"])
