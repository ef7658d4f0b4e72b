"""systemd's units: they start real commands, restart them, and give them one folder to write."""

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from graft.cli.deploy.setup import unit_files
from graft.cli.main import app

STATE = Path("/var/lib/graft")
UNITS = unit_files(Path(sys.executable).with_name("graft"), STATE)
WRITES = {
    "graft-server.service": "/var/lib/graft/server",
    "graft-depot.service": "/var/lib/graft/server",
    "graft-device@.service": "/var/lib/graft/devices/%i",
}


def service(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNITS[name])
    assert parser["Install"]["WantedBy"] == "multi-user.target"
    return parser["Service"]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_a_command_that_graft_has(name: str) -> None:
    program, *words = shlex.split(service(name)["ExecStart"])
    assert Path(program).name == "graft"
    assert words[0] == "deploy"
    group = typer.main.get_command(app).get_command(None, "deploy")  # type: ignore[attr-defined]
    command = group.get_command(None, words[1])
    assert command.make_context(words[1], words[2:]).params


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_restarted_as_its_own_user_and_writes_one_folder(name: str) -> None:
    found = service(name)
    assert found["User"] == found["Group"] == "graft"
    assert found["Restart"] == "always"
    assert found["NoNewPrivileges"] == "yes"
    assert found["ProtectSystem"] == "strict"
    assert found["CapabilityBoundingSet"] == ""
    assert found["ReadWritePaths"] == WRITES[name]
    assert not re.search(r"@[A-Z]+@", UNITS[name])


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    done = CliRunner().invoke(app, ["deploy", "units", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.iterdir()} == set(UNITS)
    for name in UNITS:
        shown = (tmp_path / name).read_text("utf-8")
        assert shown == UNITS[name]
    # A template is verified as one of its instances.
    (tmp_path / "graft-device@ann.service").write_text(UNITS["graft-device@.service"])
    wanted = [n for n in (*UNITS, "graft-device@ann.service") if "@." not in n]
    checked = subprocess.run(
        [analyze, "verify", "--man=no", *(str(tmp_path / name) for name in wanted)],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr
    assert "graft-" not in checked.stderr, checked.stderr


def test_systemd_calls_each_unit_s_exposure_ok(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    for name, text in UNITS.items():
        path = tmp_path / name.replace("@", "@ann")
        path.write_text(text)
        told = subprocess.run(
            [analyze, "security", "--offline=true", "--threshold=40", str(path)],  # 4.0 of 10
            capture_output=True,
            text=True,
        )
        if "unrecognized option" in told.stderr:
            pytest.skip("this systemd-analyze cannot judge a file")
        assert told.returncode == 0, told.stdout[-200:] + told.stderr
