"""The first hour: a bare copy, the README's and the tutorial's own text, an empty environment.

Only pip is left out: the copy's ``.venv`` stands ready, with this interpreter in it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from commands import GRAFT, run_facts
from pages import ROOT, Block, read_blocks

pytestmark = pytest.mark.slow
LIMIT_S = 3600
README, TUTORIAL = ROOT / "README.md", ROOT / "docs" / "tutorial.md"
ACTIVATE = 'export PATH="$PWD/.venv/bin:$PATH"\n'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project's files without what was built, and an environment that is ready."""
    copy = tmp_path / "graft"
    left_out = (".git", ".venv", "runs", "site", "dist", "build", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*left_out))
    programs = copy / ".venv" / "bin"
    programs.mkdir(parents=True)
    # A script and no link: an interpreter finds its libraries by where it lies.
    for name, command in (("python", sys.executable), ("graft", f"{sys.executable} {GRAFT}")):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', "utf-8")
        (programs / name).chmod(0o755)
    (programs / "activate").write_text(ACTIVATE, "utf-8")
    (copy / ".venv" / ".ready").touch()
    return copy


def follow(clone: Path, text: str) -> str:
    """Run a page's lines as one person types them: one shell, nothing of ours around it."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(clone.parent),
        "PYTHONPATH": str(clone),  # an editable install would take the code from elsewhere
        "OMP_NUM_THREADS": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        **{key: os.environ[key] for key in ("LANG", "TMPDIR") if key in os.environ},
    }
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", text],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def typed(block: Block) -> str:
    if block.language == "sh":
        return block.text
    assert block.language == "python", block.name
    return f"python - <<'END_OF_PROGRAM'\n{block.text}END_OF_PROGRAM\n"


def test_the_readmes_demo_runs_from_a_bare_copy(clone: Path) -> None:
    first = next(block for block in read_blocks(README) if block.language == "sh")
    demo = first.text.splitlines()[0]
    assert demo.startswith("make demo ")
    told = follow(clone, demo)
    assert run_facts(clone / "runs" / "demo")["hash"] in told
    assert (clone / "runs" / "demo" / "report.html").is_file()


def test_the_tutorial_goes_from_csv_to_a_report_and_a_model(clone: Path) -> None:
    blocks = read_blocks(TUTORIAL)
    assert not [block for block in blocks if block.reason]
    told = follow(clone, "".join(typed(block) for block in blocks))
    assert "my-folder: sound, 12 domains" in told
    assert (clone / "runs" / "mine" / "report.html").is_file()
    assert (clone / "runs" / "quick" / "report.html").is_file()
    model = onnx.load(str(clone / "person-03.onnx"))
    assert [output.name for output in model.graph.output] == ["logits", "probabilities"]
