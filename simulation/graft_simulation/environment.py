"""What a simulated run needs around it: environment, Ray, workers' plug-ins, and peak memory."""

import logging
import math
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import psutil
import torch

from graft.core.config import ExpansionConfig
from graft.core.plugins import load_references
from graft.errors import EdgeError
from graft.methods import Method, add_method, added_methods
from graft.models import Architecture, add_architecture, added_architectures
from graft_simulation.workers import WORKER_VARIABLES, worker_environment

log = logging.getLogger("graft")
# Read by Flower and Ray in the process that starts them: nothing is sent to their makers.
QUIET: Mapping[str, str] = MappingProxyType(
    {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # No workers before any is asked for: those of a run have an environment of their own.
        "RAY_prestart_worker_first_driver": "0",
    }
)
# A Ray of the run's own, and not a cluster that runs on this machine already. Nobody looks at its
# dashboard, and its store holds requests and responses only.
_OWN_RAY = MappingProxyType(
    {"address": "local", "include_dashboard": False, "object_store_memory": 256 * 2**20}
)


# Ray needs the texts of its own classes, which python -OO leaves out.
_FOR_RAY: Mapping[str, str] = MappingProxyType({**QUIET, "PYTHONOPTIMIZE": ""})
# A socket's path has 107 bytes; Ray's own part of it, below its folder, 65.
_LONGEST_PLACE = 107 - 65 - len("/graft-ray-01234567")


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
    """Ray while the block lasts: its own with ``workers`` processes, or the cluster at ``address``.

    Raises EdgeError where Ray does not start, or the cluster cannot be joined.
    """
    import ray  # seconds; a run without workers does without

    ending = signal.getsignal(signal.SIGTERM)
    with (
        tempfile.TemporaryDirectory() as empty,
        caller_restored(_FOR_RAY),
        _short_folder() as folder,
    ):
        try:
            ray.init(
                log_to_driver=False,
                logging_level=logging.CRITICAL,  # its reason is in the error below
                # Without a directory of their own, workers import from the driver's working
                # directory before anything else, and a graft.py there would be taken for ours.
                runtime_env={
                    "working_dir": empty,
                    "env_vars": dict(WORKER_VARIABLES) if address else worker_environment(),
                },
                **(
                    {"address": address}
                    if address
                    else {**_OWN_RAY, "num_cpus": workers, "_temp_dir": folder}
                ),
            )
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, ending)  # Ray's would exit in a way of its own
        except Exception as error:  # Ray has no class of its own for what keeps it from starting
            ray.shutdown()
            reason = " ".join(str(error).split()) or type(error).__name__
            raise EdgeError(
                f"Ray at {address or 'this machine'}: did not start: {reason}"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _short_folder() -> Iterator[str]:
    """A folder for the files and sockets of one Ray, whose paths the system allows 107 bytes.

    It is in TMPDIR, unless that is too long, as a scheduler's is. Raises EdgeError where no place
    is short enough and can be written.
    """
    places = [os.environ.get("RAY_TMPDIR"), tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]  # noqa: S108
    for place in filter(None, places):
        if len(os.fsencode(place)) > _LONGEST_PLACE:
            continue
        try:
            folder = tempfile.mkdtemp(prefix="graft-ray-", dir=place)
        except OSError:
            continue
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    raise EdgeError(
        f"Ray: got TMPDIR={os.environ.get('TMPDIR', '')}, wanted a folder that can be written and "
        f"whose path has at most {_LONGEST_PLACE} bytes; set RAY_TMPDIR to one"
    )


def usable_workers(wanted: int) -> int:
    """As many of the wanted worker processes as there are processors for this process."""
    there = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    with suppress(OSError, ValueError):  # a container's share of the machine
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        there = min(there, math.ceil(int(quota) / int(period)))
    if wanted > there:
        log.warning("workers: %d asked for, %d processors here: %d run", wanted, there, there)
    return min(wanted, there)


@dataclass(frozen=True, slots=True)
class PlugIns:
    """References for a worker to import, and a script's pickled Method and Architecture objects.

    What a script or notebook defines is pickled by value; what it imports, by reference.
    """

    references: tuple[str, ...]
    objects: bytes

    def install(self) -> None:
        """Make them known in this process; raises ConfigError for what cannot be imported."""
        _install(self)


def pack_plug_ins(config: ExpansionConfig) -> PlugIns:
    """The plug-ins of a run that ``config`` names, from this process."""
    named = [
        *(method for method in added_methods() if method.name in config.methods),
        *(each for each in added_architectures() if each.name in config.devices.architectures),
    ]
    if not named:
        return PlugIns(config.plug_ins, b"")
    from ray import cloudpickle  # a second, which a run without such methods does without

    return PlugIns(config.plug_ins, cloudpickle.dumps(named))  # type: ignore[no-untyped-call]


@cache
def _install(plug_ins: PlugIns) -> None:
    load_references(plug_ins.references)
    if not plug_ins.objects:
        return
    from ray import cloudpickle

    objects: list[Method | Architecture] = cloudpickle.loads(plug_ins.objects)
    for each in objects:
        if isinstance(each, Method):
            add_method(each)
        else:
            add_architecture(each)


class PeakMemory:
    """The highest of all samples so far, in bytes."""

    peak_bytes = 0


@contextmanager
def memory_measured(period_s: float = 5.0) -> Iterator[PeakMemory]:
    """Sample the memory (PSS) of this process and its children while the block lasts.

    A sample walks every page table of a dozen processes, hence seldom.
    """
    memory, stop = PeakMemory(), threading.Event()

    def sample() -> None:
        root = psutil.Process()
        stopped = False
        while not stopped:
            stopped = stop.wait(period_s)  # one last sample when it stops
            processes = [root, *root.children(recursive=True)]
            memory.peak_bytes = max(memory.peak_bytes, sum(map(_share_bytes, processes)))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        stop.set()
        thread.join()


def _share_bytes(process: psutil.Process) -> int:
    """Shared pages are divided over the processes that share them, where the system reports it."""
    try:
        info = process.memory_full_info()
        return int(getattr(info, "pss", info.rss))
    except psutil.Error:  # it ended between the listing and the sample
        return 0
