"""What Flower, Ray and torch are told about the place they run in."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # One thread a worker: the sums of a matrix product then have one request.
    "OMP_NUM_THREADS": "1",
    # One task's arrays lie where the last one's lay: memory that was given back to the kernel
    # comes again a page fault at a time, which takes as long as reading the data does.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
}


@contextmanager
def empty_directory() -> Iterator[None]:
    """Ray puts the current directory on its workers' import path: a ``server.py`` that lies
    where a person happens to stand must not be taken for ours."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
