"""``graft deploy calibrate``: this machine as a device class that a run can name."""

import json
from pathlib import Path

import pytest
from graft_simulation.clock.calibrate import Effort, calibrate
from typer.testing import CliRunner

from graft.cli.main import app
from graft.core.config import DeviceConfig
from graft.core.tasks import Task
from graft.devices import assign_device, device_classes
from graft.errors import ArchitectureError

runner = CliRunner()
QUICK = ["--repeats", "1", "--steps", "2", "--architectures", "mlp,cnn-small"]


def test_a_measured_machine_is_a_device_class_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    arguments = ["deploy", "calibrate", "--out", str(out), "--name", "bench", *QUICK]
    done = runner.invoke(app, [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert list(told["classes"]) == ["bench"]
    device = device_classes(str(out))["bench"]
    assert set(device.architectures) == {"mlp", "cnn-small"}
    assert "measured by graft deploy calibrate on 2" in device.source
    assert device.flops_per_s > 1e8
    assert assign_device("ann", 0, DeviceConfig(classes_file=str(out))) == device


def test_the_table_names_each_architecture(tmp_path: Path) -> None:
    done = runner.invoke(app, ["deploy", "calibrate", "--out", str(tmp_path / "m.toml"), *QUICK])
    assert done.exit_code == 0, done.output
    assert "mlp" in done.stdout
    assert "measured" in done.stdout


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    out = str(tmp_path / "m.toml")
    done = runner.invoke(app, ["deploy", "calibrate", "--out", out, "--architectures", "gpt"])
    assert isinstance(done.exception, ArchitectureError)


def test_the_clock_alone_decides_what_is_measured() -> None:
    """A clock that goes one second a look: every measurement takes a second."""
    seconds = iter(range(10**9))
    task = Task(name="w", modality="imu", sample_shape=(6, 64), classes=tuple("abcdefgh"))
    device = calibrate(
        task, ["mlp"], name="bench", source="test", memory_bytes=1,
        clock=lambda: float(next(seconds)), effort=Effort(repeats=1, steps=2),
    )  # fmt: skip
    # 2 x 512^3 FLOP in half a second, as two are measured together.
    assert device.flops_per_s == pytest.approx(4 * 512**3)
    # Few rows and many take half a second a step: nearly all of it is beside the rows.
    assert device.pace("mlp").step_s == pytest.approx(0.5, rel=0.01)
