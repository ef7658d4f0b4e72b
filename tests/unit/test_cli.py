"""The command's own part: options to settings, facts to text or JSON, errors to exit codes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from graft_server.run_folder import RunFolder
from typer.testing import CliRunner

from graft.cli import main as cli
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


def run_main(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The exit code of a command that ends in ``error``."""

    def fail(**options: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_an_unexpected_error_is_one_line_and_its_traceback_is_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run_main(monkeypatch, ZeroDivisionError("division\nby zero")) == 70
    shown = capsys.readouterr()
    assert shown.out == ""
    (log,) = tmp_path.iterdir()
    assert shown.err == (
        f"internal error: ZeroDivisionError: division by zero; the traceback is in {log} "
        "(see docs/errors.md#internal-errors)\n"
    )
    assert "Traceback (most recent call last)" in log.read_text("utf-8")
    assert "ZeroDivisionError" in log.read_text("utf-8")


def test_an_interrupted_command_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
    # Typer turns an interrupt within a command into an exit code.
    monkeypatch.setattr(cli, "app", lambda **options: 130)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr() == ("", "interrupted\n")


def test_a_library_of_an_extra_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ModuleNotFoundError("No module named 'ray'", name="ray.util")
    assert run_main(monkeypatch, error) == 1
    assert "graft-fl[simulation]" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error_message() -> None:
    program = "from graft.cli.main import main; main()"
    command = [sys.executable, "-c", program, "simulate", "--help"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.stderr, done.returncode) == ("", 1)


@pytest.mark.parametrize("arguments", [["simulate", "--set", "rounds"], ["nonsense"]])
def test_a_usage_error_has_no_traceback(arguments: list[str]) -> None:
    program = "from graft.cli.main import main; main()"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage: " in done.stderr
