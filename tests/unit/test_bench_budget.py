"""Accuracy against budgets: three ways, none above the budget, kept between commands."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graft.bench.budget import LIMITS, BudgetPoint, budget_svg
from graft.cli.main import app

SMALL = (
    "--set", "world.domains=4", "--set", "world.windows_per_domain=24",
    "--set", "training.max_steps=1", "--set", "graft.head_steps=1", "--workers", "0",
)  # fmt: skip


def sweep(folder: Path, *words: str) -> dict[str, object]:
    folders = ("--out", str(folder / "results"), "--work", str(folder / "runs"))
    done = CliRunner().invoke(
        app, ["bench", "budget", "--data", "imu", *words, *SMALL, *folders, "--format", "json"]
    )
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "limit", ["down_bytes", *(pytest.param(e, marks=pytest.mark.slow) for e in LIMITS[1:])]
)
def test_no_target_is_above_its_budget(tmp_path: Path, limit: str) -> None:
    value = {"up_bytes": 9000.0, "device_s": 0.05, "memory_bytes": 3e6}.get(limit, 30_000.0)
    words = "--limit", limit, "--value", str(value)
    found = sweep(tmp_path, *words)
    points = found["points"]
    assert [each["way"] for each in points] == ["graft", "at random", "hat"]
    assert all(0 < each["used"] <= value and each["targets"] == 2 for each in points)
    assert found["above"] == 0
    figures = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert figures[f"budget/imu/{limit}/{value:g}/hat/targets above"]["value"] == 0
    for run in (tmp_path / "runs").glob("*/*/run.toml"):  # a second command reads what is there
        run.unlink()
    assert sweep(tmp_path, *words) == found


def test_the_figure_names_each_way() -> None:
    point = {
        "data": "d", "limit": "down_bytes", "targets": 9, "unserved": 0, "used": 1.0, "above": 0,
        "accuracies": (0.5, 0.6),
    }  # fmt: skip
    svg = budget_svg([
        BudgetPoint(way=way, value=value, **point)
        for way in ("graft", "at random", "hat") for value in (1e4, 1e5)
    ])  # fmt: skip
    assert all(name in svg for name in ("HaT-style", "sources at random", "100 kB"))


def test_a_way_that_served_nobody_has_no_line() -> None:
    point = BudgetPoint(
        data="d", limit="up_bytes", value=2000, way="hat", targets=1, unserved=1, used=1.0,
        above=0, accuracies=(),
    )  # fmt: skip
    served = BudgetPoint(
        data="d", limit="up_bytes", value=2000, way="graft", targets=1, unserved=0, used=1.0,
        above=0, accuracies=(0.5,),
    )  # fmt: skip
    assert "HaT-style" not in budget_svg([served, point])
