"""An exported model is the run's own: same answers, same bytes, its whole story beside it."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from graft_server.export import (
    FinishedModel,
    find_model,
    load_model,
    write_model_folder,
    write_onnx,
)
from graft_server.export.model_folder import model_card
from huggingface_hub import ModelCard as HubCard
from safetensors.numpy import load_file

import graft
from graft.core.payload import decode_payload, encode_payload, model_id
from graft.core.tasks import Task
from graft.data import ImuWorld
from graft.errors import (
    DataError,
    DatasetFormatError,
    ExtraMissingError,
    ModelMissingError,
    PayloadChangedError,
    RunError,
)
from graft.models import build_network, parameters_of
from graft.models.encoders import IMAGE_ENCODERS, WINDOW_ENCODERS


@pytest.fixture
def target(small_run: graft.Run) -> FinishedModel:
    """A target domain of the last round that learnt from others."""
    results = small_run.results.to_pandas()
    (row, *_) = results[(results.method == "graft") & (results.round_index == 2)].itertuples()
    return small_run.model(row.domain_id)


def as_architecture(model: FinishedModel, architecture: str, task: Task) -> FinishedModel:
    """A model of another architecture, untrained, that knows all classes but the last."""
    parameters = parameters_of(build_network(architecture, task, seed=5))
    payload = encode_payload(architecture, parameters)
    mask_C = np.arange(task.num_classes) < task.num_classes - 1
    card = replace(
        model.card, architecture=architecture, model_id=model_id(payload), class_mask_C=mask_C
    )
    return replace(model, task=task, card=card, payload=payload, parameters=parameters)


@pytest.mark.parametrize("batch", [1, 5])
def test_onnxruntime_answers_as_the_model_does(
    target: FinishedModel, tmp_path: Path, batch: int
) -> None:
    path = tmp_path / "m.onnx"
    assert write_onnx(target, path) <= 1e-5
    world = ImuWorld(8, 60, seed=3)
    x = world.load(target.card.domain_id).x[:batch]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits_BC, shares_BC = session.run(["logits", "probabilities"], {"x": x})
    with torch.no_grad():
        wanted_BC = target.network()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(logits_BC, wanted_BC, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(shares_BC.sum(1), 1, atol=1e-5)
    assert (shares_BC[:, ~target.card.class_mask_C] == 0).all()


@pytest.mark.parametrize("architecture", [*WINDOW_ENCODERS, *IMAGE_ENCODERS])
def test_every_architecture_leaves_as_onnx(
    target: FinishedModel, tmp_path: Path, architecture: str
) -> None:
    image = architecture.startswith("image")
    task = Task(name="t", modality="image" if image else "imu",
                sample_shape=(1, 8, 8) if image else (3, 64), classes=("a", "b", "c"))  # fmt: skip
    model = as_architecture(target, architecture, task)
    assert write_onnx(model, tmp_path / "m.onnx") <= 1e-5
    held = onnx.load(tmp_path / "m.onnx")
    assert {p.key: p.value for p in held.metadata_props}["model_id"] == model.card.model_id


def test_equal_models_give_equal_files_that_name_no_machine(
    target: FinishedModel, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_onnx(target, tmp_path / f"{name}.onnx")
        write_model_folder(target, tmp_path / name)
    content = (tmp_path / "a.onnx").read_bytes()
    assert content == (tmp_path / "b.onnx").read_bytes()
    assert str(Path(graft.__file__).parent).encode() not in content
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_the_folder_loads_back_here_and_in_safetensors(
    target: FinishedModel, tmp_path: Path
) -> None:
    write_model_folder(target, tmp_path / "m")
    loaded = graft.load_model(tmp_path / "m")
    x = torch.randn(4, *target.task.sample_shape)
    with torch.no_grad():
        assert torch.equal(loaded.network(x), target.network()(x))
    assert loaded.task == target.task
    np.testing.assert_array_equal(loaded.class_mask_C, target.card.class_mask_C)
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    assert sorted(tensors) == sorted(decode_payload(target.payload, None, None)[1])


def test_the_hub_reads_the_card_with_licence_metrics_and_lineage(
    target: FinishedModel, tmp_path: Path
) -> None:
    write_model_folder(target, tmp_path / "m", licence="Apache 2.0")
    card = HubCard.load(tmp_path / "m" / "README.md")
    assert card.data.license == "apache-2.0"
    measured = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert target.row is not None
    assert measured["accuracy"] == target.row.accuracy
    ids = [ancestor.model_id for ancestor in target.lineage]
    assert len(ids) == len(set(ids)) > len(target.card.parents) > 0
    assert all(p in ids for ancestor in target.lineage for p in ancestor.parents)
    for ancestor in target.lineage:
        assert f"`{ancestor.model_id[:12]}` | {ancestor.domain_id} |" in card.text
    assert "Data: synthetic data, made by graft." in card.text


def test_names_cannot_become_markup_of_the_front_matter(target: FinishedModel) -> None:
    task = replace(target.task, name="x\n---\nlicense: mit")
    front = HubCard(model_card(replace(target, task=task))).data
    assert front.license == "other"
    assert front.license_name == "synthetic data, made by graft"


def test_a_model_is_found_by_its_id_and_not_by_a_guess(
    target: FinishedModel, small_run: graft.Run, tmp_path: Path
) -> None:
    by_id = find_model(small_run.folder, target.card.model_id[:8])
    assert by_id.card.domain_id == target.card.domain_id
    for name in ("nobody", target.card.model_id[:7], ""):
        with pytest.raises(ModelMissingError, match="got 0 of 8"):
            find_model(small_run.folder, name)
    with pytest.raises(RunError, match=r"run\.toml"):
        find_model(tmp_path, "ann")


def test_a_changed_payload_or_key_is_never_exported(
    target: FinishedModel, small_run: graft.Run, tmp_path: Path
) -> None:
    copy = shutil.copytree(str(small_run.folder), tmp_path / "copy")
    path = copy / "models" / f"{target.card.model_id}.safetensors"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(PayloadChangedError, match="hashes to"):
        find_model(copy, target.card.domain_id)
    text = (copy / "run.toml").read_text("utf-8").replace('id = "run"', 'id = "other"')
    (copy / "run.toml").write_text(text, "utf-8")
    with pytest.raises(PayloadChangedError, match="signature"):
        find_model(copy, target.card.domain_id)
    (copy / "keys" / "server.pub").unlink()
    with pytest.raises(RunError, match=r"server\.pub"):
        find_model(copy, target.card.domain_id)


def test_answers_that_differ_leave_no_file(
    target: FinishedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft_server.export.onnx_file.largest_difference", lambda *_: 2e-5)
    with pytest.raises(PayloadChangedError, match="2e-05 apart"):
        write_onnx(target, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_is_named(
    target: FinishedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExtraMissingError, match=r"graft-fl\[export\]"):
        write_onnx(target, tmp_path / "m.onnx")


def test_a_folder_that_is_no_exported_model_is_named(target: FinishedModel, tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="nowhere"):
        load_model(tmp_path / "nowhere")
    write_model_folder(target, tmp_path / "m")
    with pytest.raises(DataError, match="already holds"):
        write_model_folder(target, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text("utf-8"))
    config["model_id"] = "0" * 64
    (tmp_path / "m" / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(PayloadChangedError):
        load_model(tmp_path / "m")


def test_another_process_exports_a_network_that_the_run_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a later command does it: nothing has been imported for the run."""
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def flat(shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1], 8)), 8\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded: dict[str, object] = {}
    monkeypatch.setattr("graft.core.plugins._loaded", loaded)
    run = graft.simulate(
        "imu", domains=4, rounds=1, comparisons=[], engine="block", workers=0,
        architectures=["my_networks:flat"], out=tmp_path / "run",
        settings={"world.windows_per_domain": 40, "training.max_steps": 2},
    )  # fmt: skip
    loaded.clear()
    model = find_model(run.folder, str(run.results["domain_id"][0]))
    assert model.card.architecture == "my_networks:flat"
    assert write_onnx(model, tmp_path / "flat.onnx") < 1e-5
