"""What a run is checked for before anything of it is written."""

from pathlib import Path

import numpy as np
import pytest
from graft_server.round_loop import RunSettings
from graft_server.run_folder import RunFolder

from graft.core.config import ExpansionConfig
from graft.core.tasks import InputSpec, OutputSpec, Task
from graft.data.dataset_table import write_dataset
from graft.data.folder import FolderWorld
from graft.errors import ConfigError

INPUT = InputSpec(name="x", kind="window", shape=(2, 32), modality="imu", rate_hz=50.0)
OUTPUTS = (
    OutputSpec(name="pose", kind="classes", classes=("sit", "walk")),
    OutputSpec(name="tags", kind="labels", classes=("indoors", "alone")),
    OutputSpec(name="pulse", kind="amount", classes=("pulse",)),
)


@pytest.mark.parametrize("name", ["tags", "pulse"])
def test_an_output_that_no_method_learns_is_refused_by_name(tmp_path: Path, name: str) -> None:
    task = Task(name="t", modality="imu", inputs=(INPUT,), outputs=OUTPUTS)
    write_dataset(tmp_path / "data", task, channels={"x": ["a", "b"]}, rate_hz=50.0, licence="x")
    (tmp_path / "data" / "domains").mkdir()
    for number in range(6):
        domain = tmp_path / "data" / "domains" / f"d{number}.npz"
        np.savez(domain, x=np.zeros((1, 2, 32), np.float32))
    folder = RunFolder(tmp_path / "run")
    RunSettings(
        config=ExpansionConfig(), world=FolderWorld(tmp_path / "data", "pose"), folder=folder
    )
    with pytest.raises(ConfigError, match=f"'{name}' of kind"):
        RunSettings(
            config=ExpansionConfig(), world=FolderWorld(tmp_path / "data", name), folder=folder
        )
    assert not folder.path.exists()
