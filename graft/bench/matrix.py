"""Computing the missing rows of a matrix: worker processes, and one writer."""

import fcntl
import logging
import multiprocessing
import os
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from graft_simulation.environment import caller_restored

from graft.bench.jobs import failed_rows, run_job
from graft.bench.plan import Expansion, InitialTraining, Job, MatrixPlan
from graft.bench.rows import BenchmarkRow, read_benchmark_rows, write_benchmark_rows
from graft.core.ports import Progress
from graft.errors import RunError

ROWS = "rows.parquet"
_ALL = "all"
_LOG = logging.getLogger("graft.bench.rows")


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixSettings:
    """How a matrix is run; nothing here changes a row.

    ``redo``: methods whose rows are dropped and computed again; "all" for every row, and for
    the initial domains in the plan's ``work`` folder. ``progress`` gets the job that was finished
    last, the rows there are and the rows wanted.
    """

    out: Path
    workers: int = 2
    redo: tuple[str, ...] = ()
    progress: Progress = lambda *_: None


def compute_matrix(plan: MatrixPlan, settings: MatrixSettings) -> list[BenchmarkRow]:
    """Compute every missing row; all rows of ``settings.out``, in the order of their keys.

    The table is written after each finished job, so that a kill loses the running jobs alone. A
    failed target domain has a row with its error, and is tried again by the next call. Raises
    RunError where the folder has rows of another configuration or of other data.
    """
    path = settings.out / ROWS
    with _locked(settings.out), _locked(plan.work):
        rows = _reusable_rows(path, plan, settings.redo)
        table = {row.key: row for row in rows}
        keys = plan.row_keys()

        def done() -> int:
            return sum(key in table and table[key].error is None for key in keys)

        shutil.rmtree(plan.scratch, ignore_errors=True)  # what a killed run left
        if _ALL in settings.redo:
            shutil.rmtree(plan.initial_domains, ignore_errors=True)
        settings.progress("", done(), len(keys))
        for what, fresh in _computed(list(plan.expansions(rows)), settings.workers):
            table |= {row.key: row for row in fresh}
            if fresh:
                write_benchmark_rows(table.values(), path)
            settings.progress(what, done(), len(keys))
    return sorted(table.values(), key=lambda row: row.key)


def _reusable_rows(path: Path, plan: MatrixPlan, redo: Sequence[str]) -> list[BenchmarkRow]:
    """The rows there are, without what is to be done again; raises RunError for foreign ones."""
    rows = read_benchmark_rows(path) if path.exists() else []
    if _ALL in redo:
        return []
    rows = [row for row in rows if row.method not in redo]
    for row in rows:
        for what, got, wanted in (
            ("configuration", row.config_digest, plan.config_digest(row.method)),
            ("data", row.data_digest, plan.data_digests.get(row.data, row.data_digest)),
        ):
            if got != wanted:
                raise RunError(
                    f"{path}: rows of {row.data} by {row.method} were made with another {what}: "
                    f"got digest {got}, wanted {wanted}; compute them again (--redo "
                    f"{row.method}, or all) or name another folder (--out)"
                )
    return rows


def _computed(
    expansions: Sequence[Expansion], workers: int
) -> Iterator[tuple[str, list[BenchmarkRow]]]:
    """Each finished job's title and rows; target domains whose initial domains are trained come
    first."""
    waiting: dict[InitialTraining, list[Expansion]] = {}
    for expansion in expansions:
        waiting.setdefault(expansion.initial_training, []).append(expansion)
    initial_trainings, ready = deque(waiting), deque[Expansion]()
    running: dict[Future[list[BenchmarkRow]], Job] = {}
    # One thread a worker: the sums of a matrix product then have one order. Read at its start-up.
    with (
        caller_restored({"OMP_NUM_THREADS": "1"}),
        _open_pool(min(workers, len(expansions))) as pool,
    ):
        while running or ready or initial_trainings:
            while len(running) < max(1, workers) and (ready or initial_trainings):
                job = ready.popleft() if ready else initial_trainings.popleft()
                running[pool.submit(run_job, job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise RunError(
                        "benchmark: a worker process died, perhaps for lack of memory"
                    ) from error
                if error is not None:
                    _LOG.error("%s: failed", job.title, exc_info=error)
                    lost = [job] if isinstance(job, Expansion) else waiting[job]
                    yield job.title, [row for each in lost for row in failed_rows(each, error)]
                    continue
                if isinstance(job, InitialTraining):
                    ready += waiting[job]
                yield job.title, future.result()


def _open_pool(workers: int) -> Executor:
    if workers < 1:  # in this process, for tests and a debugger
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )


def _start_worker() -> None:
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)  # its strategy logs every average
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End with the parent: a pool's worker would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock ``folder`` against other writers; raises RunError where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{folder}: another benchmark run is writing here") from error
        yield
    finally:
        os.close(handle)
