"""Power lost within a run and within a deployment's expansion: both end as if it had not been."""

import random
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("what", ["simulation", pytest.param("deployment", marks=pytest.mark.slow)])
def test_three_power_losses_do_not_change_the_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "trust"))
    import power

    runs, same, losses = power.survive(what, tmp_path, 3, 3, random.Random(0))
    assert (same, losses) == (runs, 3)
    for name in [
        name for name in sys.modules if name in ("power", "summary", "trust", "trust.field")
    ]:
        del sys.modules[name]
