"""A library call leaves its caller's process as it found it, whatever lies in the folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
sys.path[:] = [path for path in sys.path if path not in ("", ".")]
import json, os, torch, graft
from graft.errors import GraftError

engine, workers, failing = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "failing"
torch.set_num_threads(2)
before = dict(os.environ), os.getcwd(), torch.get_num_threads()
settings = {"world.windows_per_domain": 40, "training.max_steps": 2}
if failing:
    settings["network.dropout_rate"] = 1.0
try:
    graft.simulate(domains=5, rounds=1, engine=engine, workers=workers, out="run", settings=settings)
    outcome = "complete"
except GraftError as error:
    outcome = type(error).__name__
after = dict(os.environ), os.getcwd(), torch.get_num_threads()
print(json.dumps({"outcome": outcome, "before": before, "after": after}))
"""


@pytest.mark.parametrize(
    ("engine", "workers", "way"),
    [
        ("block", "0", "well"),
        ("block", "0", "failing"),
        ("block", "1", "well"),
        ("flower", "1", "well"),
        ("flower", "1", "failing"),
    ],
)
def test_a_simulation_restores_environment_directory_and_threads(
    tmp_path: Path, engine: str, workers: str, way: str
) -> None:
    for name in ("graft.py", "server.py", "client.py", "simulation.py", "graft_server.py"):
        (tmp_path / name).write_text("raise SystemExit('a stranger was imported')\n")
    script = tmp_path / "scripts" / "call.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FLWR_", "RAY_"))}
    done = subprocess.run(
        [sys.executable, "-P", str(script), engine, workers, way],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["outcome"] == ("complete" if way == "well" else "ExpansionFailedError")
    assert told["before"] == told["after"]
