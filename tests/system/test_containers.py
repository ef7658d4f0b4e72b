"""`make field`: images are built, a deployment of containers does two rounds, one is killed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 3600.0


def answers(engine: str) -> bool:
    found = shutil.which(engine)
    return found is not None and not subprocess.run([found, "info"], capture_output=True).returncode


@pytest.mark.skipif(
    not any(map(answers, ("docker", "podman"))), reason="neither Docker nor Podman answers here"
)
def test_a_deployment_of_containers_serves_two_rounds_and_survives_a_kill() -> None:
    done = subprocess.run(
        [sys.executable, ".ci/field.py"], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "2 rounds, 3 models, all from containers" in done.stdout
