"""A page's worked example, followed to the letter: its module installed, its command run."""

import subprocess
from pathlib import Path

from commands import GRAFT, LIMIT_S, quiet_environment
from pages import block_of, install_page

from graft.core.results import ResultRow
from graft.core.tables import read_results


def follow_page(page: Path, module: str, folder: Path) -> list[ResultRow]:
    """The results of the page's one ``graft`` command, run in ``folder``."""
    installed = install_page(page, module, folder / "installed")
    ((program, *arguments),) = block_of(page, "sh").commands()
    assert program == "graft"
    done = subprocess.run(
        [GRAFT, *arguments],
        cwd=folder,
        env=quiet_environment() | {"PYTHONPATH": installed},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return read_results(folder / "run" / "results.parquet")
