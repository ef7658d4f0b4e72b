"""The compiled trainer: built once, never needed, and right in values and gradients."""

import logging
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from small_trainings import STACKABLE, WINDOWS, make_training, tensors

from graft.core.tasks import Task
from graft.models import build_network
from graft.training import features_of_parts, train_supervised_many
from graft.training.compiled import build
from graft.training.compiled.build import build_kernels, load_kernels
from graft.training.compiled.calls import Objective, compiled_gradients
from graft.training.compiled.plan import kernel_plan
from graft.training.stacked import StackedNetwork

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@needs_compiler
@pytest.mark.parametrize(("task", "architecture"), STACKABLE)
@pytest.mark.parametrize("num_rows", [7, 32])
def test_loss_and_gradients_are_those_of_the_stacked_form(
    task: Task, architecture: str, num_rows: int
) -> None:
    generator = torch.Generator().manual_seed(num_rows)
    x = torch.randn(num_rows, *task.sample_shape, generator=generator)
    y_B = torch.randint(0, task.num_classes, (num_rows,), generator=generator)
    network = build_network(architecture, task, 3)
    plan = kernel_plan(network, task.sample_shape, num_rows)
    assert plan is not None
    before = tensors(network)
    one_hot_BC = F.one_hot(y_B, task.num_classes).float()
    objective = Objective(wanted_NC=one_hot_BC, weight_B=torch.full((num_rows,), 1 / num_rows))
    loss, gradients = compiled_gradients(plan, network, x, objective)
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors(network).items())

    stack = StackedNetwork([network], "cpu")
    wanted = F.cross_entropy(stack(stack.rows(x)[None])[0], y_B)
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    assert gradients.keys() == stack.parameters.keys()
    for name, gradient in gradients.items():
        one = stack.parameters[name].grad[0]
        scale = one.abs().max().item()
        torch.testing.assert_close(gradient, one, atol=1e-4 * scale, rtol=1e-3, msg=name)


@needs_compiler
@pytest.mark.parametrize(("task", "architecture"), STACKABLE)
def test_compiled_features_are_pytorchs_in_eval_mode(task: Task, architecture: str) -> None:
    # 7 rows are less than the kernel's batch of 32, and 7 + 40 a batch and a half.
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(rows, *task.sample_shape, generator=generator) for rows in (7, 40)]
    network = build_network(architecture, task, 3).train()
    network(3 * parts[1] + 1)  # running statistics other than a fresh network's
    assert kernel_plan(network, task.sample_shape, 32) is not None
    found, wanted = (
        features_of_parts(network.eval(), parts, compiled=True),
        features_of_parts(network, parts),
    )
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5 * theirs.abs().max().item(), rtol=1e-4)


def test_features_without_a_compiled_form_are_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_NO_KERNELS", "1")
    network, parts = build_network("mlp", WINDOWS, 3).eval(), [torch.ones(3, *WINDOWS.sample_shape)]
    assert torch.equal(
        features_of_parts(network, parts, compiled=True)[0], features_of_parts(network, parts)[0]
    )


@needs_compiler
def test_a_compiled_network_does_not_depend_on_its_neighbours() -> None:
    one, *many = [make_training(WINDOWS, "cnn-small", 12, 0) for _ in range(2)]
    train_supervised_many([one])
    train_supervised_many([make_training(WINDOWS, "cnn-small", 12, 5), *many])
    mine, theirs = tensors(one.network), tensors(many[0].network)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_without_a_compiler_jobs_train_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert load_kernels() is None
    assert "no compiled kernels" in caplog.text
    jobs = [make_training(WINDOWS, "cnn-small", 12, seed) for seed in (0, 1)]
    before = tensors(jobs[0].network)
    train_supervised_many(jobs)
    after = tensors(jobs[0].network)
    assert not torch.equal(before["head.weight"], after["head.weight"])


@needs_compiler
def test_without_a_compiler_the_baseline_of_the_package_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_BESIDE", tmp_path / "beside")
    built = build_kernels(tmp_path / "beside", baseline=True)
    assert built != build_kernels(tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("PATH", str(tmp_path))
    kernels = load_kernels()
    assert kernels is not None
    assert kernels._name == str(built)


@pytest.mark.parametrize(("machine", "least"), [("x86_64", "x86-64-v3"), ("aarch64", "armv8-a")])
def test_a_baseline_asks_for_the_least_of_its_kind_of_processor(
    machine: str, least: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\nflags="$*"\nwhile [ "$1" != -o ]; do shift; done\nprintf %s "$flags" > "$2"\n'
    )
    compiler.chmod(0o700)
    monkeypatch.setattr(build.platform, "machine", lambda: machine)
    built = build_kernels(tmp_path, str(compiler), baseline=True)
    assert f"-march={least}" in built.read_text()


def test_kernels_are_off_where_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_NO_KERNELS", "1")
    assert load_kernels() is None


@needs_compiler
def test_a_compiler_that_fails_leaves_no_file_behind(tmp_path: Path) -> None:
    with pytest.raises(subprocess.SubprocessError):
        build_kernels(tmp_path, compiler="false")
    assert list(tmp_path.iterdir()) == []


def test_two_may_build_at_once(tmp_path: Path) -> None:
    # A slow compiler that writes its output in two halves: nobody may ever see the first alone.
    compiler = tmp_path / "slow-cc"
    compiler.write_text(
        '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n'
        'printf half > "$2"; sleep 0.2; printf whole >> "$2"\n'
    )
    compiler.chmod(0o700)
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(build_kernels, [cache, cache], [str(compiler)] * 2))
    assert paths[0] == paths[1]
    assert list(cache.iterdir()) == [paths[0]]
    assert paths[0].read_text() == "halfwhole"
