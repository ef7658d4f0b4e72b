"""What ``graft deploy status`` shows: read from a folder, quickly, whatever is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from graft_server.deployment.heard import HeardDevices, read_heard
from graft_server.observability.overview import read_overview
from graft_server.round_schedule import plan_round
from small_deployment import make_server, one_round

from graft.core.records import SystemState


@pytest.fixture
def server(tmp_path: Path) -> Path:
    return make_server(tmp_path, "ann", "bob")


def test_a_device_is_online_for_a_minute_and_known_while_a_server_runs(tmp_path: Path) -> None:
    now = 1000.0
    heard = HeardDevices(tmp_path, clock_s=lambda: now)
    heard.hear("ann", "")
    heard.write()
    now = 1055.0
    heard.write(["bob"])
    found = read_heard(tmp_path)
    assert {d: found.word(d, now) for d in ("ann", "bob", "cid")} == {
        "ann": "online", "bob": "online", "cid": "registered",
    }  # fmt: skip
    now = 1070.0
    again = HeardDevices(tmp_path, clock_s=lambda: now)  # the server was started again
    again.write()
    assert read_heard(tmp_path).word("ann", now) == "offline"
    assert read_heard(tmp_path).word("ann", now + 600) == "unknown"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"time": 1}', '{"time": 1, "heard": [1]}'])
def test_a_torn_file_is_no_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state" / "heard.json"
    path.parent.mkdir()
    path.write_text(content)
    assert read_heard(tmp_path).by_device == {}


def test_it_shows_rounds_models_and_the_latest_error_of_each_domain(server: Path) -> None:
    empty = read_overview(server, superlink=False, depot=False)
    assert (empty.superlink, empty.depot, empty.rounds, empty.finished) == (False, False, 0, 0)
    one_round(server, {"ann": None, "bob": "NodesMissingError"})
    now = read_overview(server, superlink=False, depot=False)
    found = {each.domain: (each.round, each.model, each.error) for each in now.devices}
    assert found == {"ann": (0, False, ""), "bob": (0, False, "NodesMissingError")}
    assert (now.rounds, now.finished, now.models) == (1, 1, 0)


def test_a_round_that_is_planned_is_not_finished(server: Path) -> None:
    plan_round(server, ["ann"], SystemState())
    assert (
        read_overview(server, superlink=False, depot=False).rounds,
        read_overview(server, superlink=False, depot=False).finished,
    ) == (1, 0)


def test_status_imports_neither_torch_nor_flower(server: Path) -> None:
    words = ["deploy", "status", "--server", str(server), "--format", "json"]
    script = (
        "import sys; from graft.cli.main import app\n"
        f"code = app({words!r}, standalone_mode=False)\n"
        "assert not {'torch', 'flwr', 'pandas', 'matplotlib'} & sys.modules.keys(), code"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["devices"][0]["node"] == "unknown"
