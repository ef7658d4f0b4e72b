"""``graft new``: the project that it makes works as it stands."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from commands import LIMIT_S, quiet_environment


def test_a_new_projects_own_test_passes(
    graft: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    made = graft("new", "my project")
    assert made.returncode == 0, made.stderr
    assert "next           cd 'my project' && python -m pytest" in made.stdout
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "my project", env=quiet_environment(), capture_output=True, text=True,
        timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
