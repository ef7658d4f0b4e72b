"""What every worker process of a run holds in memory, it must need."""

import subprocess
import sys

HEAVY = {"matplotlib", "pandas", "plotly", "scipy.optimize", "scipy.stats", "sklearn"}


def test_a_worker_loads_no_library_that_only_scores_and_reports_need() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import graft_simulation.block.worker, sys; print(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    assert "graft_simulation.block.worker" in loaded
    assert HEAVY & set(loaded) == set()
