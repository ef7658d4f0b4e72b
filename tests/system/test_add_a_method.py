"""docs/add-a-method.md, followed to the letter."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

from commands import GRAFT, LIMIT_S, quiet_environment

from graft.results import read_results

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-method.md"


def block(language: str) -> str:
    """The page's one code block of a language."""
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return str(code)


def test_the_worked_example_runs_as_the_page_says(tmp_path: Path) -> None:
    installed = tmp_path / "installed"  # what pip makes of the page's pyproject table
    (installed / "confident_kd-0.1.dist-info").mkdir(parents=True)
    (installed / "confident_kd.py").write_text(block("python"), "utf-8")
    ((group, names),) = tomllib.loads(block("toml"))["project"]["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {module}" for name, module in names.items())]
    information = installed / "confident_kd-0.1.dist-info"
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: confident-kd\nVersion: 0.1\n", "utf-8"
    )
    program, *arguments = shlex.split(block("sh").replace("\\\n", " "))
    assert program == "graft"
    done = subprocess.run(
        [GRAFT, *arguments],
        cwd=tmp_path,
        env=quiet_environment() | {"PYTHONPATH": str(installed)},
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
