"""Architectures of other packages: offered where they are asked for, and under names of their own."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from torch import nn

from graft.core.tasks import Task
from graft.errors import ArchitectureError, ConfigError
from graft.models import build_network, network_cost, offered_architectures
from graft.models import registry as installed
from graft.models.registry import Architecture

WINDOWS = Task(name="w", modality="imu", sample_shape=(6, 64), classes=tuple("abcdefgh"))
IMAGES = Task(name="i", modality="image", sample_shape=(1, 16, 16), classes=tuple("abcd"))


def flat(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    return nn.Flatten(), shape[0] * shape[1]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Let a package be installed that lists windows' architectures of these names."""

    def install(*names: str) -> None:
        module = SimpleNamespace(
            ARCHITECTURES=[Architecture(name=n, takes="windows", encoder=flat) for n in names]
        )
        entry = SimpleNamespace(load=lambda: module)
        monkeypatch.setattr(installed, "entry_points", lambda group: [entry])
        installed.installed_architectures.cache_clear()
        network_cost.cache_clear()

    yield install
    monkeypatch.undo()
    installed.installed_architectures.cache_clear()
    network_cost.cache_clear()


def test_an_installed_architecture_is_built_and_costed_but_not_offered_unasked(install) -> None:  # type: ignore[no-untyped-def]
    before = offered_architectures(WINDOWS)
    install("flat")
    assert offered_architectures(WINDOWS) == before
    assert offered_architectures(WINDOWS, ("flat", "mlp")) == ("flat", "mlp")
    assert build_network("flat", WINDOWS, seed=0).num_features == 384
    # The head alone: 384 features to 8 classes, a multiply-add counted as two.
    assert network_cost("flat", WINDOWS).flops_per_sample == 2 * 384 * 8


def test_an_architecture_of_windows_is_none_of_images(install) -> None:  # type: ignore[no-untyped-def]
    install("flat")
    with pytest.raises(ArchitectureError, match="flat"):
        offered_architectures(IMAGES, ("flat",))


@pytest.mark.parametrize("names", [("flat", "flat"), ("mlp",)])
def test_two_of_one_name_are_refused(install, names: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    install(*names)
    with pytest.raises(ConfigError, match=names[0]):
        build_network("cnn-small", WINDOWS, seed=0)
