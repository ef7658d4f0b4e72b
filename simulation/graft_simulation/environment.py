"""The environment of a simulated run: its workers' own, and the caller's, left as it was found."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import torch

from graft.errors import EdgeError

# Read by Flower and Ray in the process that starts them: nothing is sent to their makers.
QUIET: Mapping[str, str] = MappingProxyType(
    {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
)
_WORKERS: Mapping[str, str] = MappingProxyType(
    {
        # One thread a worker: the sums of a matrix product then have one order.
        "OMP_NUM_THREADS": "1",
        # The arrays of a task take the memory of the one before: what is given back to the kernel
        # comes again a page fault at a time, which takes as long as reading the data does.
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
    }
)
# A Ray of the run's own, and not a cluster that runs on this machine already. Nobody looks at its
# dashboard, and its store holds requests and responses only.
_OWN_RAY = MappingProxyType(
    {"address": "local", "include_dashboard": False, "object_store_memory": 256 * 2**20}
)


@contextmanager
def caller_restored(variables: Mapping[str, str] = QUIET) -> Iterator[None]:
    """Set environment variables while the block lasts.

    After it, on errors too, the environment and torch's number of threads are what they were:
    Ray and Flower set variables of their own.
    """
    before, threads = dict(os.environ), torch.get_num_threads()
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
        torch.set_num_threads(threads)


@contextmanager
def ray_started(workers: int, address: str | None = None) -> Iterator[None]:
    """Ray while the block lasts: its own on this machine, or the cluster at ``address``.

    Parameters
    ----------
    workers : int
        Processes of an own Ray, 1 or more.
    address : str, optional
        A cluster to join.

    Raises
    ------
    EdgeError
        Where Ray does not start, or the cluster cannot be joined.
    """
    import ray  # seconds; a run without workers does without

    environment = {**_WORKERS, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryDirectory() as empty, caller_restored():
        try:
            ray.init(
                log_to_driver=False,
                logging_level=logging.ERROR,
                # Without a directory of their own, workers import from the driver's working
                # directory before anything else, and a graft.py there would be taken for ours.
                runtime_env={
                    "working_dir": empty,
                    "env_vars": dict(_WORKERS) if address else environment,
                },
                **({"address": address} if address else {**_OWN_RAY, "num_cpus": workers}),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EdgeError(f"Ray at {address or 'this machine'}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()
