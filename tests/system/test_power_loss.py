"""Power lost within a run and within a deployment's expansion: both end as if it had not been."""

import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "trust"))
    yield importlib.import_module("power")
    for name in {"power", "power_supply", "summary", "trust", "trust.field"} & sys.modules.keys():
        del sys.modules[name]


@pytest.mark.parametrize("what", ["simulation", pytest.param("deployment", marks=pytest.mark.slow)])
def test_three_power_losses_do_not_change_the_result(
    power: ModuleType, tmp_path: Path, what: str
) -> None:
    runs, same, losses = power.survive(what, tmp_path, 3, 3, random.Random(0))
    assert (same, losses) == (runs, 3)


def test_on_a_disk_that_ignores_what_is_synced_the_result_changes(
    power: ModuleType, tmp_path: Path
) -> None:
    chance = random.Random(0)
    runs, same, losses = power.survive("simulation", tmp_path, 2, 1, chance, syncs=False)
    assert (runs, losses) == (2, 2)
    assert same < runs
