"""The command's own part: options to settings, facts to text or JSON, errors to exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest
from graft_server.run_folder import RunFolder
from typer.testing import CliRunner

from graft.cli.main import app
from graft.core.config import ExpansionConfig
from graft.data import ImuWorld, write_dataset, write_domain
from graft.data.synthetic.imu import CHANNELS, RATE_HZ
from graft.errors import ConfigError, DatasetFormatError

runner = CliRunner()
WORLD = ImuWorld(3, 40, seed=1)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    folder = tmp_path / "people"
    write_dataset(folder, WORLD.task, channels=CHANNELS, rate_hz=RATE_HZ, licence="synthetic")
    for domain_id in WORLD.domain_ids:
        write_domain(folder, WORLD.load(domain_id))
    return folder


def test_a_sound_folder_has_no_problems(people: Path) -> None:
    done = runner.invoke(app, ["data", "check", str(people), "--format", "json"])
    assert done.exit_code == 0
    facts = json.loads(done.stdout)
    assert (facts["problems"], facts["domains"]) == (0, 3)


def test_a_pickle_inside_npz_is_named_and_never_loaded(people: Path) -> None:
    name = WORLD.domain_ids[1]
    np.savez(people / "domains" / f"{name}.npz", x=np.array([{"a": 1}], object), y=np.zeros(1))
    done = runner.invoke(app, ["data", "check", str(people), "--format", "json"])
    assert done.exit_code == 1
    facts = json.loads(done.stdout)
    assert facts["problems"] == 1
    assert facts[name].startswith("DatasetFormatError")


def test_an_unknown_public_set_is_refused(tmp_path: Path) -> None:
    arguments = ["data", "prepare", "mnist", "--from", str(tmp_path), "--out", str(tmp_path / "o")]
    done = runner.invoke(app, arguments)
    assert isinstance(done.exception, ConfigError)
    assert "mnist" in str(done.exception)


def test_originals_that_are_missing_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    arguments = ["data", "prepare", "hapt", "--from", str(missing), "--out", str(tmp_path / "o")]
    done = runner.invoke(app, arguments)
    assert isinstance(done.exception, DatasetFormatError)
    assert "nowhere" in str(done.exception)


def test_options_win_over_set_and_set_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[ExpansionConfig] = []

    def begin(self: RunFolder, config: ExpansionConfig, *rest: object) -> None:
        started.append(config)
        raise ConfigError("seen enough")

    monkeypatch.setattr(RunFolder, "begin", begin)
    file = tmp_path / "graft.toml"
    file.write_text("seed = 1\nrounds = 2\n[split]\ngamma = 0.3\n", "utf-8")
    runner.invoke(
        app,
        [
            "simulate", "--config", str(file), "--set", "rounds=4", "--set", "seed=2",
            "--seed", "3", "--out", str(tmp_path / "run"),
        ],
    )  # fmt: skip
    (config,) = started
    assert (config.seed, config.rounds, config.split.gamma) == (3, 4, 0.3)


def test_a_setting_without_a_value_is_a_usage_error() -> None:
    done = runner.invoke(app, ["simulate", "--set", "rounds"])
    assert done.exit_code == 2
