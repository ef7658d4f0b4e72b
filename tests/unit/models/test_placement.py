"""Encoders on an accelerator, and in bfloat16: every method, with the rest on the processor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from own_networks import ON_PUBLIC
from pretended import NAME, pretended_accelerator

import graft
from graft.cli.deploy.services import device as run_device
from graft.core.config import TrainingConfig
from graft.core.deployment import DeviceSettings, write_device
from graft.data import ImuWorld
from graft.errors import ConfigError
from graft.lifelong.growth import METHODS, GrowthTask, grow_classes
from graft.methods.base import methods_by_name
from graft.models import build_network, network_from, parameters_of
from graft.models.placement import PLAIN, Placement, placed
from graft.training.private import PrivateTraining, SoftRows, minimise_privately

WORLD = ImuWorld(2, 40, seed=0)
DATA = WORLD.load(WORLD.domain_ids[0])
X = torch.from_numpy(DATA.x)
SMALL = {"world.windows_per_domain": 24, "training.max_steps": 2, "graft.head_steps": 2}


def simulate(out: Path, accelerator: str, *methods: str, **settings: object) -> graft.Run:
    return graft.simulate(
        "imu", comparisons=methods, domains=6, rounds=1, settings=SMALL | settings,
        engine="block", workers=0, out=out, accelerator=accelerator,
    )  # fmt: skip


@pytest.mark.parametrize("architecture", ["gru", "cnn-small"])
def test_an_encoder_computes_on_the_accelerator(architecture: str) -> None:
    plain = build_network(architecture, WORLD.task, 0).eval()
    with pretended_accelerator() as places, placed(Placement(NAME)):
        there = network_from(architecture, WORLD.task, parameters_of(plain))
        weight, head = next(there.encoder.parameters()), there.head.weight
        assert places.is_there(weight)
        assert not places.is_there(head)
        logits = there(X)
        logits.square().mean().backward()  # type: ignore[no-untyped-call]
        assert places.is_there(weight.grad)
        assert not places.is_there(head.grad)
        back = parameters_of(there)
    torch.testing.assert_close(logits.detach(), plain(X).detach())
    assert all(np.array_equal(back[name], each) for name, each in parameters_of(plain).items())


def test_networks_share_a_backbone_on_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graft.models.building.find_architecture", lambda name, task: ON_PUBLIC)
    with pretended_accelerator() as places, placed(Placement(NAME)):
        one, two = (build_network("any", WORLD.task, seed) for seed in (0, 1))
        weights = [next(each.encoder.parameters()) for each in (one, two)]
        assert weights[0].data_ptr() == weights[1].data_ptr()
        assert places.is_there(weights[0])


def test_bfloat16_is_near_float32_and_the_head_stays_exact() -> None:
    plain = build_network("cnn-small", WORLD.task, 0).eval()
    with placed(Placement(autocast="bfloat16")):
        half = network_from("cnn-small", WORLD.task, parameters_of(plain))
    features, exact = half.features(X), plain.features(X)
    assert features.dtype == torch.float32
    assert 0 < (features - exact).abs().max() < 0.05 * exact.abs().max()
    torch.testing.assert_close(half.head(features), plain.head(features))


def test_an_encoder_grows_on_the_accelerator() -> None:
    y = torch.from_numpy(DATA.y_N)
    old_C = np.arange(WORLD.task.num_classes) < 2
    with pretended_accelerator(), placed(Placement(NAME)):
        network = build_network("cnn-small", WORLD.task, 0).eval()
        for way in METHODS:
            task = GrowthTask(
                network=network, old_C=old_C, new_C=~old_C, x_L=X[:8], y_L=y[:8], x_U=X[8:],
                x_old=X[:4], y_old=y[:4] % 2, training=TrainingConfig(max_steps=2), seed=0,
            )  # fmt: skip
            assert torch.isfinite(grow_classes(task, way)(X)).all()


def test_an_encoder_trains_privately_on_the_accelerator() -> None:
    private = PrivateTraining(clip_norm=1.0, pay=lambda q, n: (1.0, np.random.default_rng(0)))
    rows = SoftRows(
        x=X, target_NC=torch.eye(WORLD.task.num_classes)[DATA.y_N], weight_N=torch.ones(len(X))
    )
    config = TrainingConfig(max_steps=2)
    with pretended_accelerator(), placed(Placement(NAME)):
        network = build_network("cnn-small", WORLD.task, 0)
        before = parameters_of(network)
        minimise_privately(network, rows, config, private, num_rows=len(X), seed=0)
        after = parameters_of(network)
    assert any(not np.array_equal(before[name], after[name]) for name in before)


def test_a_round_runs_on_the_accelerator_and_in_bfloat16(tmp_path: Path) -> None:
    plain = simulate(tmp_path / "plain", "cpu", "label-only").results.to_pandas()
    with pretended_accelerator() as places:
        there = simulate(tmp_path / "there", NAME, "label-only").results.to_pandas()
    assert places.num_operations > 1000
    assert (plain.accuracy - there.accuracy).abs().mean() < 0.05
    half = simulate(tmp_path / "half", "cpu", "label-only", **{"training.autocast": "bfloat16"})
    assert half.results.to_pandas().accuracy.notna().all()
    assert half.hash != graft.open_run(tmp_path / "plain").hash


@pytest.mark.slow
def test_every_method_runs_on_the_accelerator_and_in_bfloat16(tmp_path: Path) -> None:
    methods = [name for name in methods_by_name() if name not in ("graft", "initial")]
    plain = simulate(tmp_path / "plain", "cpu", *methods).results.to_pandas()
    with pretended_accelerator():
        there = simulate(tmp_path / "there", NAME, *methods).results.to_pandas()
    half = simulate(tmp_path / "half", "cpu", *methods, **{"training.autocast": "bfloat16"})
    for other in (there, half.results.to_pandas()):
        difference = (plain.accuracy - other.accuracy).abs()
        assert difference.groupby(plain.method).mean().max() < 0.15
        assert difference.mean() < 0.03


def test_a_device_without_the_accelerator_refuses_at_its_start(tmp_path: Path) -> None:
    settings = DeviceSettings(domain="a", run="r", superlink="h:1", depot="h:2", bundle="")
    write_device(tmp_path, settings)
    with pytest.raises(ConfigError, match="accelerator: got 'nonsense', wanted one of cpu"):
        run_device(tmp_path, tmp_path, accelerator="nonsense")


def test_outside_the_block_networks_are_plain() -> None:
    with placed(Placement(NAME, "bfloat16")):
        pass
    assert build_network("cnn-small", WORLD.task, 0).placement == PLAIN
