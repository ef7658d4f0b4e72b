"""What the peers' scripts share: their options, two processes side by side, the measuring.

Runs inside a peer's environment, hence with the standard library and psutil alone. The first
process starts the workers, waits until all have compiled and warmed up, starts their timed
parts together and takes the domains of all over the time of the slowest.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata

import psutil

WIDTHS = {"cnn-small": (16, 32), "cnn-medium": (32, 64, 64), "cnn-large": (48, 96, 128)}
NUM_CHANNELS, LENGTH, NUM_CLASSES, NUM_ROWS = 6, 128, 8, 256
KERNEL, STRIDE = 5, 2
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-4
# So many domains differ; more are their repetition, so that data fit any memory.
DISTINCT_DOMAINS = 64
# OpenMP and MKL obey their own variables, XLA's pool takes its size from NPROC.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NPROC": "1"}


@dataclass(frozen=True)
class ComputeCost:
    """What one worker trains: ``domains`` of the whole, the ``worker``-th part."""

    domains: int
    epochs: int
    batch_size: int
    warm_up_domains: int
    architecture: str
    seed: int

    @property
    def widths(self) -> tuple[int, ...]:
        return WIDTHS[self.architecture]


Train = Callable[[ComputeCost, Callable[[], None], Callable[[], None]], None]


def run_peer(
    name: str, packages: tuple[str, ...], train: Train, environment: Mapping[str, str]
) -> None:
    """Parse the command line and be the first process, or the worker that it started.

    ``train(work, start, stop)`` warms up, calls ``start``, trains ``work.domains`` domains and
    calls ``stop``. ``environment`` is set for the workers before they import anything.
    """
    arguments = _parse(name)
    if arguments.worker is not None:
        _be_worker(train, arguments)
        return
    workers = [
        subprocess.Popen(
            [sys.executable, *sys.argv, "--worker", str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD, **environment},
        )
        for worker in range(arguments.processes)
    ]
    with _PeakMemory() as memory:
        for worker in workers:
            _line(worker)  # it is warm
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        measured = [json.loads(_line(worker)) for worker in workers]
        memory.look()  # before the workers leave
        for worker in workers:
            worker.communicate()
    seconds = max(m["seconds"] for m in measured)
    print(
        json.dumps(
            {
                "peer": name,
                "architecture": arguments.architecture,
                "processes": arguments.processes,
                "domains": arguments.domains,
                "seconds": seconds,
                "domains_per_s": arguments.domains / seconds,
                "cpu_seconds": sum(m["cpu_seconds"] for m in measured),
                "pss_peak_bytes": memory.peak_bytes,
                "versions": {
                    "python": platform.python_version(),
                    **{package: metadata.version(package) for package in packages},
                },
            }
        )
    )


def _parse(name: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Domains a second of {name}'s local training.")
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--architecture", choices=sorted(WIDTHS), default="cnn-small")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--warm-up-domains", type=int, default=4, help="of each process")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _line(worker: subprocess.Popen) -> str:
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"a worker ended early, exit code {worker.wait()}")
    return line


def _be_worker(train: Train, arguments: argparse.Namespace) -> None:
    # What a peer itself prints must not be taken for a result.
    results, sys.stdout = sys.stdout, sys.stderr
    started: list[float] = []

    def start() -> None:
        print("warm", file=results, flush=True)
        sys.stdin.readline()
        started[:] = time.perf_counter(), time.process_time()

    def stop() -> None:
        now = time.perf_counter(), time.process_time()
        seconds, cpu_seconds = (then - before for then, before in zip(now, started, strict=True))
        measured = {"seconds": seconds, "cpu_seconds": cpu_seconds}
        print(json.dumps(measured), file=results, flush=True)

    first = arguments.worker * arguments.domains // arguments.processes
    after = (arguments.worker + 1) * arguments.domains // arguments.processes
    work = ComputeCost(
        domains=after - first,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        warm_up_domains=arguments.warm_up_domains,
        architecture=arguments.architecture,
        seed=arguments.seed + arguments.worker,
    )
    train(work, start, stop)
    sys.stdin.readline()  # leave only once memory was looked at


class _PeakMemory:
    """The highest sum of PSS over this process and all its children, looked at each second."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "_PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        process = psutil.Process()
        total = 0
        for each in [process, *process.children(recursive=True)]:
            try:
                info = each.memory_full_info()
            except psutil.Error:  # it ended between the listing and the look
                continue
            total += getattr(info, "pss", info.rss)
        self.peak_bytes = max(self.peak_bytes, total)

    def _sample(self) -> None:
        while not self._stop.wait(1.0):
            self.look()
