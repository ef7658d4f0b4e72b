"""The first hour: a bare copy, the README's and the tutorial's own text, an empty environment.

The demo sets its environment up by pip; for the tutorial ``.venv`` stands ready, with this
interpreter in it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest
from commands import GRAFT, run_facts
from messy import RESNET, write_pictures, write_recordings
from pages import ROOT, Block, read_blocks

from graft.core.tables import read_results

pytestmark = pytest.mark.slow
LIMIT_S = 3600
README, TUTORIAL = ROOT / "README.md", ROOT / "docs" / "tutorial.md"
ACTIVATE = 'export PATH="$PWD/.venv/bin:$PATH"\n'


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The project's files without what was built."""
    copy = tmp_path / "graft"
    left_out = (".git", ".venv", "runs", "site", "dist", "build", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*left_out))
    return copy


@pytest.fixture
def clone(bare: Path) -> Path:
    """The same with an environment that is ready."""
    copy = bare
    programs = copy / ".venv" / "bin"
    programs.mkdir(parents=True)
    # A script and no link: an interpreter finds its libraries by where it lies.
    for name, command in (("python", sys.executable), ("graft", f"{sys.executable} {GRAFT}")):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', "utf-8")
        (programs / name).chmod(0o755)
    (programs / "activate").write_text(ACTIVATE, "utf-8")
    (copy / ".venv" / ".ready").touch()
    return copy


def follow(clone: Path, text: str, more: Mapping[str, str] | None = None) -> str:
    """Run a page's lines as one person types them: one shell, nothing of ours around it."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(clone.parent),
        # An editable install would take the code from elsewhere.
        "PYTHONPATH": ":".join(
            str(clone / each) for each in ("", "server", "client", "simulation")
        ),
        "OMP_NUM_THREADS": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        **{key: os.environ[key] for key in ("LANG", "TMPDIR") if key in os.environ},
        **(more or {}),
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


def test_the_readmes_demo_runs_from_a_bare_copy(bare: Path) -> None:
    first = next(block for block in read_blocks(README) if block.language == "sh")
    demo = first.text.splitlines()[0]
    assert demo.startswith("make demo ")
    # Where packages come from is the machine's own affair: its pip settings stay.
    settings = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    settings |= {"PYTHON": f"{sys.base_prefix}/bin/python3", "HOME": str(Path.home())}
    told = follow(bare, demo, settings)
    assert (bare / ".venv" / "pyvenv.cfg").is_file()
    assert run_facts(bare / "runs" / "demo")["hash"] in told
    assert (bare / "runs" / "demo" / "report.html").is_file()


def test_the_tutorial_goes_from_csv_to_a_report_and_a_model(clone: Path) -> None:
    blocks = read_blocks(TUTORIAL)
    assert not [block for block in blocks if block.reason]
    told = follow(clone, "".join(typed(block) for block in blocks))
    assert "my-folder: sound, 12 domains" in told
    assert (clone / "runs" / "mine" / "report.html").is_file()
    assert (clone / "runs" / "quick" / "report.html").is_file()
    model = onnx.load(str(clone / "person-03.onnx"))
    assert [output.name for output in model.graph.output] == ["logits", "probabilities"]


# What somebody types who brings recordings, pictures and a network of her own.
OWN = r"""
graft new project && (cd project && python -m pytest -p no:cacheprovider)
graft data from-csv recordings --label Aktivität --sensors x,y,z --time Zeit --rate 50 --out people
graft data check people
graft simulate --data people --rounds 1 --set training.max_steps=20 --engine block --out first
graft report first
graft data from-images pictures --size 32 --out cameras
graft data check cameras
export PYTHONPATH="$PWD:$PYTHONPATH"
graft architecture check my_resnet:ResNet --data cameras
graft simulate --data cameras --dry-run
graft simulate --data cameras --rounds 1 --set training.max_steps=20 --engine block --out default
graft simulate --data cameras --rounds 1 --set training.max_steps=20 \
    --set 'devices.architectures=["my_resnet:ResNet"]' --join-timeout-s 900 --out resnet
graft report resnet
graft export onnx resnet --model Kamera-7 --out camera.onnx
"""


def test_messy_recordings_pictures_and_an_own_network_lead_to_reports(clone: Path) -> None:
    write_recordings(clone / "recordings")
    write_pictures(clone / "pictures")
    (clone / "my_resnet.py").write_text(RESNET, "utf-8")
    told = follow(clone, ACTIVATE + OWN)
    assert "1 passed" in told
    # What is untidy was understood, and said.
    for fact in ("header is line 4", "decimal comma", "cp1252", "is in ms (inferred)", "8 domains"):
        assert fact in told
    assert "picture does not decode, first pictures/Kamera 0/cat/broken.jpg" in told
    assert "FAILS" not in told
    assert "microcontroller 0 domains, 8.39 MB; fits nothing" in told
    for run in ("first", "default", "resnet"):
        assert run_facts(clone / run)["status"] == "complete"
        rows = read_results(clone / run / "results.parquet")
        assert all(row.error is None for row in rows)
    assert {row.architecture for row in rows} == {"my_resnet:ResNet"}
    model = onnx.load(str(clone / "camera.onnx"))
    (picture,) = model.graph.input
    assert [each.dim_value for each in picture.type.tensor_type.shape.dim][1:] == [3, 32, 32]
