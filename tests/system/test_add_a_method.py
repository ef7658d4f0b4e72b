"""docs/add-a-method.md, followed to the letter."""

import subprocess
from pathlib import Path

from commands import GRAFT, LIMIT_S, quiet_environment
from pages import ROOT, block_of, install_page

from graft.results import read_results

PAGE = ROOT / "docs" / "add-a-method.md"


def test_the_worked_example_runs_as_the_page_says(tmp_path: Path) -> None:
    installed = install_page(PAGE, "confident_kd", tmp_path / "installed")
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
    newcomers = [row for row in rows if row.round_index]
    by_method = {
        method: [row.accuracy for row in newcomers if row.method == method]
        for method in ("confident-kd", "label-only", "average-kd-selected")
    }
    assert {len(accuracies) for accuracies in by_method.values()} == {7}  # 12 - round(0.4 * 12)
    assert by_method["confident-kd"] != by_method["average-kd-selected"]
