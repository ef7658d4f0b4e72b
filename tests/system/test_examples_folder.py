"""Every script in examples/ runs as a person runs it, and prints what it found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import GRAFT, LIMIT_S, quiet_environment
from pages import ROOT

from graft.core.tables import read_results

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PRINTS = {
    "one_round": "registered: 6 models",
    "own_data": "of 5 sites",
    "own_method": "sharp-kd",
    "own_model": "own_model:TINY",
    "own_tracker": "round 2: graft/accuracy",
    "pretrained_pictures": "backbones once",
    "resnet_pictures": "150 pictures in pictures",
}
SLOW = ("pretrained_pictures",)  # minutes: `make demo-images`


@pytest.mark.parametrize(
    "example",
    [pytest.param(e, marks=[pytest.mark.slow] if e.stem in SLOW else []) for e in EXAMPLES],
    ids=lambda path: path.stem,
)
def test_an_example_runs_and_prints_what_it_found(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, example], cwd=tmp_path, env=quiet_environment(), capture_output=True,
        text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert PRINTS[example.stem] in done.stdout


def test_the_method_of_the_example_runs_by_its_reference_on_flower(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, (str(ROOT / "examples"), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [
            GRAFT, "simulate", "--domains", "6", "--rounds", "1", "--method", "own_method:METHOD",
            "--set", "sharp_kd.temperature=0.4", "--set", "comparisons=[]", "--workers", "1",
            "--set", "world.windows_per_domain=40", "--set", "training.max_steps=4", "--out", "run",
        ],
        cwd=tmp_path, env=quiet_environment() | {"PYTHONPATH": path}, capture_output=True,
        text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read_results(tmp_path / "run" / "results.parquet")
    assert sum(row.method == "own_method:METHOD" and row.error is None for row in rows) == 4
