"""Modules as people bring them: found by name, built, checked, trained and sent."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import graft
from graft.core.config import ExpansionConfig
from graft.core.config_files import with_settings
from graft.core.payload import decode_payload, encode_payload, model_id
from graft.core.plugins import load_references
from graft.core.records import BFLOAT16
from graft.core.tasks import Task
from graft.errors import ArchitectureError, ConfigError, PayloadLimitError
from graft.methods import find_method
from graft.models import (
    Architecture,
    build_network,
    network_cost,
    network_from,
    offered_architectures,
    parameter_shapes,
    parameters_of,
)
from graft.training import Source, TrainingTask

WINDOWS = Task(name="w", modality="imu", sample_shape=(3, 16), classes=("a", "b", "c"))
IMAGES = Task(name="i", modality="image", sample_shape=(1, 32, 32), classes=("a", "b"))
REFERENCES = ["own_networks:Transformer", "own_networks:Half", "own_networks:DEEP"]


@pytest.fixture(autouse=True)
def _loaded() -> None:
    load_references(REFERENCES)


def trip(name: str, task: Task = WINDOWS) -> tuple[nn.Module, nn.Module]:
    """A network and the one that its payload gives."""
    network = build_network(name, task, seed=3).eval()
    payload = encode_payload(name, parameters_of(network))
    decoded = decode_payload(payload, parameter_shapes(name, task), model_id(payload))[1]
    return network, network_from(name, task, decoded)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_module_by_reference_travels_bit_for_bit(name: str) -> None:
    network, rebuilt = trip(name)
    x = torch.randn(4, *WINDOWS.sample_shape)
    with torch.no_grad():
        assert torch.equal(network(x), rebuilt(x))
    state, again = network.state_dict(), rebuilt.state_dict()
    assert all(torch.equal(state[key], again[key]) for key in state)
    assert {key: t.dtype for key, t in state.items()} == {key: t.dtype for key, t in again.items()}


def test_types_travel_as_they_are() -> None:
    arrays = parameters_of(build_network("own_networks:Half", WINDOWS, seed=0))
    assert arrays["encoder.first.weight"].dtype == BFLOAT16
    assert arrays["encoder.gain"].dtype == np.float16
    positions = parameters_of(build_network("own_networks:Transformer", WINDOWS, seed=0))
    assert positions["encoder.positions"].tolist() == list(range(16))


def test_a_width_that_nobody_says_is_measured() -> None:
    assert build_network("own_networks:Half", WINDOWS, seed=0).num_features == 24
    assert network_cost("own_networks:Half", WINDOWS).num_features == 24


def test_other_shapes_than_it_says_are_refused() -> None:
    load_references(["own_networks:wrong_width", "own_networks:broken"])
    with pytest.raises(ArchitectureError, match=r"features of shape \(2, 20\).*\(2, 64\)"):
        network_cost("own_networks:wrong_width", WINDOWS)
    with pytest.raises(ArchitectureError, match="no such weights"):
        build_network("own_networks:broken", WINDOWS, seed=0)
    with pytest.raises(ArchitectureError, match="own_networks:DEEP"):
        build_network("own_networks:DEEP", IMAGES, seed=0)


def test_a_name_from_another_machine_is_not_imported() -> None:
    for name in ("own_networks:dense", "timm:resnet18", "transformers:/tmp"):
        with pytest.raises(ArchitectureError, match="architecture"):
            build_network(name, WINDOWS, seed=0)
    with pytest.raises(ConfigError, match="own_networks:nothing"):
        load_references(["own_networks:nothing"])


def test_a_missing_library_is_named() -> None:
    config = with_settings(ExpansionConfig(), {"devices.architectures": ["timm:resnet18"]})
    with pytest.raises(ArchitectureError, match="wanted timm installed"):
        offered_architectures(IMAGES, config.devices.architectures)


def test_frozen_tensors_keep_their_values_and_travel_without_a_backbone() -> None:
    load_references(["own_networks:FROZEN"])
    network = build_network("own_networks:FROZEN", WINDOWS, seed=0)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"encoder.1.bias", "head.weight", "head.bias"}
    assert set(parameters_of(network)) == set(network.state_dict())
    bad = Architecture(name="bad", encoder=lambda shape: (nn.Flatten(), 48), trained=("norms",))
    graft.models.add_architecture(bad)
    with pytest.raises(ArchitectureError, match="norms"):
        build_network("bad", WINDOWS, seed=0)


def test_a_local_transformers_folder_is_found_beside_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1],
        "layer_type": "basic", "num_channels": 3,
    }  # fmt: skip
    folder = tmp_path / "tiny-resnet"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.syspath_prepend(tmp_path)
    load_references(["transformers:tiny-resnet"])
    network, rebuilt = trip("transformers:tiny-resnet", IMAGES)
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(x), rebuilt(x))
    assert network.num_features == 12
    load_references(["transformers:nowhere"])
    with pytest.raises(ArchitectureError, match="nowhere"):
        build_network("transformers:nowhere", IMAGES, seed=0)


def task_with(names: list[str]) -> TrainingTask:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, *WINDOWS.sample_shape, generator=generator)
    y = torch.arange(40) % 3
    sources = tuple(
        Source(
            model_id=str(i) * 64, domain_id=f"s{i}", architecture=name, mask_C=np.ones(3, bool),
            network=build_network(name, WINDOWS, seed=i).eval(),
        )
        for i, name in enumerate(names)
    )  # fmt: skip
    config = with_settings(ExpansionConfig(), {"training.max_steps": 3, "graft.head_steps": 3})
    return TrainingTask(
        domain_task=WINDOWS, architecture=names[0], x_L=x[:12], y_L=y[:12], x_U=x[12:],
        sources=sources, config=config, seed=1, hidden_y_U=y[12:],
    )  # fmt: skip


@pytest.mark.parametrize(
    "method", ["graft", "hat", "decision", "shot", "label-only", "finetuned-any"]
)
@pytest.mark.parametrize("name", ["own_networks:DEEP", "own_networks:Transformer"])
def test_methods_take_heads_and_layers_that_they_do_not_know(method: str, name: str) -> None:
    task = task_with([name, "own_networks:DEEP", "cnn-small"])
    model = find_method(method).fit(task)
    assert torch.isfinite(model.network(task.x_U)).all()


def test_a_payload_of_other_types_is_refused() -> None:
    arrays = dict(parameters_of(build_network("own_networks:Half", WINDOWS, seed=0)))
    arrays["encoder.gain"] = arrays["encoder.gain"].astype(np.float32)
    with pytest.raises(PayloadLimitError, match=r"encoder\.gain"):
        network_from("own_networks:Half", WINDOWS, arrays)


def flat(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1], 12), nn.ReLU()), 12


def test_an_object_of_a_script_serves_a_run(tmp_path: Path) -> None:
    run = graft.simulate(
        "imu", architectures=[Architecture(name="flat-12", encoder=flat)], method="label-only",
        comparisons=[], domains=5, rounds=1, engine="block", workers=0, out=tmp_path / "run",
        settings={"world.windows_per_domain": 40, "training.max_steps": 2},
    )  # fmt: skip
    assert set(run.results["architecture"].to_pylist()) == {"flat-12"}


class SmallResNet(nn.Module):
    """Two residual blocks on pictures."""

    num_features = 16

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for first, second in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            x = torch.relu(x + second(torch.relu(first(x))))
        return x.mean((2, 3))


@pytest.mark.parametrize("name", ["own_networks:Transformer", "small-resnet", "gru"])
def test_flops_are_those_of_the_counter(name: str) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    graft.models.add_architecture(
        Architecture(name="small-resnet", takes="image", encoder=SmallResNet)
    )
    task = IMAGES if name == "small-resnet" else WINDOWS
    network = build_network(name, task, seed=0).eval()
    # The counter sees every product of attention that is not fused.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(1, *task.sample_shape))
    counted = counter.get_total_flops()
    assert network_cost(name, task).flops_per_sample == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("name", ["own_networks:Transformer", "small-resnet", "cnn-medium"])
def test_memory_without_a_pass_is_what_a_pass_keeps(name: str) -> None:
    graft.models.add_architecture(
        Architecture(name="small-resnet", takes="image", encoder=SmallResNet)
    )
    task = IMAGES if name == "small-resnet" else WINDOWS
    network = build_network(name, task, seed=0).train()
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = network(torch.zeros(64, *task.sample_shape)).sum()
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    real = sum(size for at, size in kept.items() if at not in own)
    assert out.requires_grad
    cost = network_cost(name, task)
    modelled = cost.training_memory_bytes - cost.num_bytes - 12 * cost.num_parameters
    # Attention is fused on a CPU and keeps less than its products.
    assert real <= modelled * 1.02
    assert modelled <= real * (3.5 if "Transformer" in name else 1.02)
