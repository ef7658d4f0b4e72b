"""docs/add-an-architecture.md, followed to the letter."""

import subprocess
from pathlib import Path

from commands import GRAFT, LIMIT_S, quiet_environment
from pages import ROOT, block_of, install_page

from graft.results import read_results

PAGE = ROOT / "docs" / "add-an-architecture.md"


def test_the_worked_example_runs_as_the_page_says(tmp_path: Path) -> None:
    installed = install_page(PAGE, "separable_cnn", tmp_path / "installed")
    ((program, *arguments),) = block_of(PAGE, "sh").commands()
    assert program == "graft"
    done = subprocess.run(
        [GRAFT, *arguments],
        cwd=tmp_path,
        env=quiet_environment() | {"PYTHONPATH": installed},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_results(tmp_path / "run" / "results.parquet")
    assert all(row.accuracy is not None for row in rows)
    # Each domain drew one of the two.
    assert {row.architecture for row in rows} == {"separable-cnn", "cnn-small"}
