"""A deployment's server folder for unit tests, with rounds that are over."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from graft_server.flower.deployed_app import run_folder
from graft_server.round_schedule import plan_round
from typer.testing import CliRunner

from graft.cli.main import app
from graft.core.config import ExpansionConfig
from graft.core.results import ResultRow
from graft.data import ImuWorld, write_dataset
from graft.data.synthetic.imu import CHANNELS

WORLD = ImuWorld(2, 40, seed=0)


def make_server(path: Path, *devices: str) -> Path:
    """A server's folder without a round."""
    data = path / "data"
    write_dataset(data, WORLD.task, channels=CHANNELS, rate_hz=None, licence="synthetic")
    words = ["deploy", "init", str(path / "field"), "--host", "server", "--dataset", str(data)]
    for device in devices:
        words += ["--device", device]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return path / "field" / "server"


def one_round(
    server: Path,
    errors: Mapping[str, str | None],
    messages: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Plan and finish the next round of these domains, each with its error."""
    folder = run_folder(server)
    state = folder.read_state()
    if state.round_index == 0:
        folder.begin(ExpansionConfig(), WORLD)
    plan_round(server, list(errors), state)
    method = "graft" if state.round_index else "initial"
    rows = [
        ResultRow(
            domain_id=domain_id,
            method=method,
            round_index=state.round_index,
            accuracy=None if error else 0.5,
            error=error,
            error_message=messages.get(domain_id),
        )
        for domain_id, error in errors.items()
    ]
    folder.save_round(state.admit(()), rows, [])
