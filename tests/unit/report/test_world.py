"""A world described: distances by hand, order by likeness, a picture that stands by itself."""

import json
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from graft.cli.main import app
from graft.core.config import ExpansionConfig
from graft.core.tasks import Task
from graft.data import DomainData, FolderWorld, ImuWorld, write_dataset, write_domain
from graft.errors import DomainEmptyError
from graft.report.figures.world import world_figure
from graft.report.world import describe_world, world_facts

TASK = Task(name="gait", modality="imu", sample_shape=(1, 8), classes=("walk", "rest"))
# Two crowds: a, c and e swing around 0, b and d around 10.
LEVELS = {"a": 0.0, "b": 10.0, "c": 0.1, "d": 10.1, "e": 0.2}


def person(domain_id: str, level: float) -> DomainData:
    rng = np.random.default_rng(1)
    return DomainData(
        domain_id=domain_id,
        x=(level + rng.normal(size=(12, 1, 8))).astype(np.float32),
        y_N=np.array([0] * 8 + [1] * 4),
        group_N=np.arange(12) // 2,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "people"
    persons = {"a": "ann", "c": "ann"}
    write_dataset(folder, TASK, channels=["x"], rate_hz=10, licence="CC0", persons=persons)
    for name, level in LEVELS.items():
        write_domain(folder, person(name, level))
    return folder


def test_alike_domains_stand_together_and_the_nearest_is_another_person(folder: Path) -> None:
    described = describe_world(FolderWorld(folder), ExpansionConfig())
    crowds = [LEVELS[name] > 5 for name in described.domain_ids]
    assert sum(one != two for one, two in pairwise(crowds)) == 1
    facts = {each["domain"]: each for each in world_facts(described)["domains"]}
    # c lies nearer to a than e does, but a and c are ann.
    assert facts["a"]["nearest"] == "e"
    assert facts["b"]["nearest"] == "d"
    assert facts["a"]["classes"] == [8, 4]
    np.testing.assert_array_equal(np.diag(described.distance_DD), 0)
    np.testing.assert_allclose(described.distance_DD, described.distance_DD.T, rtol=1e-6)


def test_a_domain_that_cannot_be_read_is_left_out_with_the_reason(folder: Path) -> None:
    (folder / "domains" / "b.npz").write_bytes(b"no archive")
    described = describe_world(FolderWorld(folder), ExpansionConfig())
    assert len(described.domain_ids) == 4
    assert [name for name, _ in described.unusable] == ["b"]
    for name in "acde":
        (folder / "domains" / f"{name}.npz").write_bytes(b"no archive")
    with pytest.raises(DomainEmptyError, match="no domain that can be used"):
        describe_world(FolderWorld(folder), ExpansionConfig())


def test_the_picture_names_domains_and_classes_and_is_the_same_each_time() -> None:
    described = describe_world(ImuWorld(6, 40, seed=1), ExpansionConfig())
    picture = world_figure(described)
    assert picture == world_figure(described)
    words = "".join(ET.fromstring(picture).itertext())
    for name in (*described.domain_ids, *described.task.classes):
        assert name in words
    assert len([e for e in ET.fromstring(picture).iter() if e.tag.endswith("image")]) == 4


def test_the_command_draws_and_tells(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.svg"
    arguments = ["world", "describe", "--data", str(folder), "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["persons"] == 4
    assert facts["classes"] == {"walk": 40, "rest": 20}
    assert out.read_text("utf-8").startswith("<svg")
    few = CliRunner().invoke(app, [*arguments, "--most", "3", "--format", "json"])
    assert len(json.loads(few.stdout)["domains"]) == 3
