"""Data to try a deployment with: whole domain folders, one a device."""

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from graft.cli.main import app
from graft.data.folder import FolderWorld
from graft.data.synthetic.imu import ImuWorld


def test_each_folder_is_one_person_of_the_simulators_world(tmp_path: Path) -> None:
    arguments = ["deploy", "sample", str(tmp_path), "--domains", "2", "--windows", "40"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    world = ImuWorld(2, 40, seed=0)
    for domain_id in world.domain_ids:
        found = FolderWorld(tmp_path / domain_id)
        assert list(found.domain_ids) == [domain_id]
        wanted = world.load(domain_id)
        assert np.array_equal(found.load(domain_id).x, wanted.x)
        assert np.array_equal(found.load(domain_id).y_N, wanted.y_N)


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    own = tmp_path / "user-000000"
    own.mkdir()
    (own / "dataset.toml").write_text("mine")
    done = CliRunner().invoke(app, ["deploy", "sample", str(tmp_path), "--domains", "2"])
    assert done.exit_code == 0, done.output
    assert (own / "dataset.toml").read_text() == "mine"
    assert not (own / "domains").exists()
