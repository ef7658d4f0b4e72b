"""``create_deployment`` writes among no files of another kind."""

from pathlib import Path

import pytest
from graft_server.deployment.enrolment import create_deployment

from graft.core.config import ExpansionConfig
from graft.data.dataset_table import write_dataset
from graft.data.synthetic.imu import CHANNELS, ImuWorld
from graft.errors import DataError


def init(out: Path, dataset: Path) -> None:
    create_deployment(
        out,
        host="localhost",
        dataset=dataset,
        config=ExpansionConfig(),
        flower_port=9443,
        depot_port=9444,
    )


def test_a_deployment_leaves_the_data_and_other_files_alone(tmp_path: Path) -> None:
    data, task = tmp_path / "server", ImuWorld(2, 40, seed=0).task
    write_dataset(data, task, channels=list(CHANNELS), rate_hz=50.0, licence="ours")
    with pytest.raises(DataError, match="holds the source"):
        init(tmp_path, data)
    (tmp_path / "field" / "devices").mkdir(parents=True)
    (tmp_path / "field" / "devices" / "list.txt").write_text("mine", "utf-8")
    with pytest.raises(DataError, match="files of another kind"):
        init(tmp_path / "field", data)
    assert sorted(path.name for path in (tmp_path / "field").rglob("*")) == ["devices", "list.txt"]
