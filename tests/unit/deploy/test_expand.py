"""``graft deploy expand`` where there is nothing to go on with."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from graft_server.flower.deployed_app import expansion_lock, is_expanding, run_folder
from graft_server.round_loop import RunSettings, run_rounds
from graft_server.round_schedule import plan_round
from graft_server.run_folder import RunFolder
from typer.testing import CliRunner

from graft.cli.main import app
from graft.core.config import ExpansionConfig
from graft.core.exchange import Request, Response, failure_of
from graft.core.records import SystemState
from graft.core.results import ResultRow
from graft.core.tables import read_results
from graft.data import ImuWorld, write_dataset
from graft.data.synthetic.imu import CHANNELS
from graft.errors import ConfigError, EdgeError, ExpansionFailedError, NodesMissingError, RunError

runner = CliRunner()
WORLD = ImuWorld(2, 40, seed=0)


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A server's folder whose round 0, of ann and ben, is over."""
    write_dataset(
        tmp_path / "data", WORLD.task, channels=CHANNELS, rate_hz=None, licence="synthetic"
    )
    words = ["deploy", "init", str(tmp_path / "field"), "--host", "server", "--device", "ann"]
    done = runner.invoke(app, [*words, "--dataset", str(tmp_path / "data")])
    assert done.exit_code == 0
    return tmp_path / "field" / "server"


def finish_round(server: Path, error: str | None = None) -> None:
    state = SystemState()
    plan_round(server, ["ann", "ben"], state)
    folder = run_folder(server)
    folder.begin(ExpansionConfig(), WORLD)
    rows = [
        ResultRow(domain_id="ann", method="initial", round_index=0, accuracy=0.5),
        ResultRow(domain_id="ben", method="initial", round_index=0, error=error),
    ]
    folder.save_round(state.admit(()), rows, [])


def test_a_round_that_ended_while_its_command_was_gone_is_shown(server: Path) -> None:
    finish_round(server)
    words = ["deploy", "expand", "--server", str(server), "--format", "json"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert [(row["domain"], row["round"], row["accuracy"]) for row in told] == [
        ("ann", 0, 0.5), ("ben", 0, None),
    ]  # fmt: skip


def test_a_machine_that_went_off_after_the_last_round_leaves_no_tables_of_before(
    server: Path,
) -> None:
    finish_round(server)
    folder = run_folder(server)
    folder.finish(1)
    rows = [ResultRow(domain_id="cid", method="graft", round_index=1, accuracy=0.25)]
    plan_round(server, ["cid"], folder.read_state())
    folder.save_round(folder.read_state().admit(()), rows, [])
    assert runner.invoke(app, ["deploy", "expand", "--server", str(server)]).exit_code == 0
    found = read_results(folder.path / "results.parquet")
    assert [row.domain_id for row in found] == ["ann", "ben", "cid"]


def test_it_is_no_success_where_a_domain_of_that_round_failed(server: Path) -> None:
    finish_round(server, error="DomainEmptyError")
    done = runner.invoke(app, ["deploy", "expand", "--server", str(server)])
    assert isinstance(done.exception, ExpansionFailedError)
    assert "ben" in str(done.exception)


def test_only_known_classes_grow_and_only_in_named_domains_of_the_system(server: Path) -> None:
    finish_round(server)
    words = ["deploy", "expand", "--server", str(server), "--grow"]
    assert isinstance(runner.invoke(app, [*words, "row"]).exception, ConfigError)
    done = runner.invoke(app, [*words, "fly", "ann"])
    assert "got class 'fly'" in str(done.exception)
    done = runner.invoke(app, [*words, "row", "ann"])
    assert isinstance(done.exception, RunError)
    assert "ann: has no model" in str(done.exception)


def test_before_the_first_round_somebody_must_arrive(server: Path) -> None:
    done = runner.invoke(app, ["deploy", "expand", "--server", str(server)])
    assert isinstance(done.exception, RunError)
    assert "name the domains" in str(done.exception)


def test_a_serverapp_that_runs_is_seen_by_its_lock(server: Path) -> None:
    assert not is_expanding(server)
    with expansion_lock(server):
        assert is_expanding(server)
    assert not is_expanding(server)


class Nobody:
    """A way to domains of which none answers."""

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        return [failure_of(each, EdgeError("no answer")) for each in requests]


def test_a_first_round_without_any_initial_domain_may_be_run_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run-1")
    folder.begin(ExpansionConfig(), WORLD)
    settings = RunSettings(
        config=ExpansionConfig(), world=WORLD, folder=folder, planned=(WORLD.domain_ids,),
        needs_source=True,
    )  # fmt: skip
    with pytest.raises(NodesMissingError, match=f"{WORLD.domain_ids[0]}: EdgeError: no answer"):
        run_rounds(lambda record, progress: Nobody(), settings)
    assert folder.count_rounds() == 0
