"""A method of a script: given as an object or by its reference, with its own section."""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

import graft
from graft.core import plugins
from graft.core.config import ExpansionConfig
from graft.core.config_files import config_from_dict, config_toml, with_settings
from graft.errors import ConfigError
from graft.methods import Method, base, find_method
from graft.methods.baselines import fit_label_only
from graft.models import build_network
from graft.training import TrainedModel, TrainingTask

MODULE = """
from torch import nn
from graft.methods import Method
from graft.methods.baselines import fit_label_only
from graft.models.registry import Architecture

METHOD = Method(name="mine", title="Mine", fit=fit_label_only, sources_needed="none")
FLAT = Architecture(
    name="flat", takes="windows", encoder=lambda shape: (nn.Flatten(), shape[0] * shape[1])
)
"""


@dataclass(frozen=True)
class OwnSettings:
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    names: tuple[str, ...] = ()


class OwnModel(BaseModel):
    beta: int = Field(3, ge=1)


def fit_own(task: TrainingTask) -> TrainedModel:
    alpha = task.config.section("own", OwnSettings).alpha
    return dataclasses.replace(fit_label_only(task), metrics={"held_out_accuracy": alpha})


OWN = Method(
    name="own", title="Own", fit=fit_own, sources_needed="none", section="own", settings=OwnSettings
)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds or loads is unknown after it."""
    monkeypatch.setattr(base, "_added", {})
    monkeypatch.setattr(plugins, "_loaded", {})


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_module_of_a_test.py").write_text(MODULE, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "own_module_of_a_test"


def run_own(out: Path, **settings: object) -> graft.Run:
    small = {"world.windows_per_domain": 40, "training.max_steps": 2}
    return graft.simulate(
        "imu", method=OWN, comparisons=["label-only"], domains=6, rounds=1, engine="block",
        workers=0, settings={**small, **settings}, out=out,
    )  # fmt: skip


def test_a_method_object_runs_with_its_section_which_stands_in_run_toml(tmp_path: Path) -> None:
    run = run_own(tmp_path / "run", **{"own.alpha": 0.25})
    rows = [row for row in run.results.to_pylist() if row["method"] == "own"]
    assert [row["held_out_accuracy"] for row in rows] == [0.25] * 4
    table = tomllib.loads((tmp_path / "run" / "run.toml").read_text("utf-8"))["config"]
    assert table["method"] == "own"
    assert table["sections"] == {"own": {"alpha": 0.25, "names": []}}
    # Its defaults stand there too, and the same run has the same hash.
    again = run_own(tmp_path / "again", **{"own.names": ["a"]})
    table = tomllib.loads((tmp_path / "again" / "run.toml").read_text("utf-8"))["config"]
    assert table["sections"] == {"own": {"alpha": 0.5, "names": ["a"]}}
    assert again.hash != run.hash
    assert run_own(tmp_path / "same", **{"own.alpha": 0.25}).hash == run.hash


def test_a_run_whose_method_is_missing_is_read_and_is_resumed_with_the_object(
    tmp_path: Path,
) -> None:
    run = run_own(tmp_path / "run", **{"own.alpha": 0.25})
    base._added.clear()
    assert [each["method"] for each in graft.open_run(run.folder).summary()] == [
        "own",
        "label-only",
    ]
    with pytest.raises(ConfigError, match=r"method: got 'own', wanted .*graft\.resume"):
        graft.resume(run.folder)
    assert graft.resume(run.folder, methods=[OWN]).hash == run.hash


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("own.alpha", 2, r"own\.alpha: got 2, wanted at most 1"),
        ("own.alpha", "x", r"own\.alpha: got 'x', wanted float"),
        ("own.gamma", 1, r"unknown configuration key 'own\.gamma'"),
        ("model.beta", 0, r"model\.beta: got 0, wanted at least 1"),
        ("model.gamma", 1, r"unknown configuration key 'model\.gamma'"),
        ("nobodys.gamma", 1, "unknown configuration key 'nobodys'"),
    ],
)
def test_a_section_is_checked_by_its_own_settings(key: str, value: object, named: str) -> None:
    dataclasses.replace(OWN, name="other", section="model", settings=OwnModel)
    with pytest.raises(ConfigError, match=named):
        with_settings(ExpansionConfig(), {key: value})


def test_settings_of_a_section_add_up_and_go_through_toml() -> None:
    config = with_settings(ExpansionConfig(), {"own.alpha": 0.25})
    config = with_settings(config, {"own.names": ["a"]})
    assert config.section("own", OwnSettings) == OwnSettings(alpha=0.25, names=("a",))
    assert config_from_dict(tomllib.loads(config_toml(config))) == config
    assert ExpansionConfig().section("own", OwnSettings) == OwnSettings()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "a/b"}, "method name: got 'a/b'"),
        ({"section": "split"}, "section: got 'split', wanted a name of its own"),
        ({"section": ""}, "wanted section and settings, or neither"),
    ],
)
def test_a_method_that_cannot_be_is_refused(changes: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        dataclasses.replace(OWN, **changes)  # type: ignore[arg-type]


def test_a_method_of_an_installed_name_is_refused(tmp_path: Path) -> None:
    other = dataclasses.replace(OWN, name="label-only")
    with pytest.raises(ConfigError, match="method 'label-only': got two"):
        graft.simulate("imu", method=other, out=tmp_path / "run")


def test_a_reference_in_the_configuration_is_imported_and_known_by_itself(
    module: str, tmp_path: Path
) -> None:
    reference, flat = f"{module}:METHOD", f"{module}:FLAT"
    run = graft.simulate(
        "imu", method=reference, comparisons=[], domains=6, rounds=1, engine="block", workers=0,
        settings={
            "world.windows_per_domain": 40, "training.max_steps": 2, "devices.architectures": [flat],
        },
        out=tmp_path / "run",
    )  # fmt: skip
    assert {row["architecture"] for row in run.results.to_pylist()} == {flat}
    assert find_method(reference).name == reference
    assert [each["method"] for each in run.summary()] == [reference]
    assert build_network(flat, run.model("user-000000").task, seed=0).num_features == 6 * 64


def test_a_reference_of_another_machine_is_not_imported(module: str) -> None:
    config = config_from_dict({"method": f"{module}:METHOD", "comparisons": []})
    for name in config.plug_ins:
        with pytest.raises(ConfigError, match="wanted one of"):
            find_method(name)
    plugins.load_references(config.plug_ins)
    assert find_method(config.method).title == "Mine"


@pytest.mark.parametrize("reference", ["nowhere_at_all:METHOD", "{module}:NOTHING"])
def test_a_reference_that_cannot_be_imported_says_so(reference: str, module: str) -> None:
    with pytest.raises(ConfigError, match=r"got .*Error: .* on PYTHONPATH"):
        with_settings(ExpansionConfig(), {"method": reference.format(module=module)})
