"""A module of 100 million parameters is shipped, probed and trained by its adapters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from graft_server.depot.server import DepotServer
from graft_server.model_store import open_store
from large_module_process import TASK, encoder

from graft.models import Backbone, backbone_hash

HERE = Path(__file__).parent


@pytest.mark.slow
def test_it_takes_no_more_than_one_and_a_half_times_its_own_memory(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        weights = encoder(TASK.sample_shape)[0].state_dict()
    size_mb = sum(tensor.nbytes for tensor in weights.values()) / 1e6
    assert size_mb > 400
    sha256 = backbone_hash("large", weights)
    store = open_store(tmp_path / "store", TASK)
    backbone = Backbone(name="large", licence="none", sha256=sha256, weights=lambda: weights)
    assert store.keep_backbone(backbone) == sha256
    with DepotServer(store, "127.0.0.1:0", insecure=True) as depot:
        path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, sys.path)])
        done = subprocess.run(
            [sys.executable, HERE / "large_module_process.py", tmp_path, str(depot.port), sha256],
            capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    growth_mb = float(done.stdout.split()[-1])
    assert growth_mb <= 1.5 * size_mb, growth_mb
