"""The run over all cells that lack a row: worker processes, and one writer."""

import fcntl
import logging
import multiprocessing
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graft.bench.jobs import carry_out, failed_rows
from graft.bench.plan import EvidencePlan, Expansion, Founding, Job
from graft.bench.rows import EvidenceRow, read_evidence, write_evidence
from graft.errors import RunError

ROWS = "rows.parquet"
_ALL = "all"
_LOG = logging.getLogger("graft.bench.rows")
# (what was finished last, rows there by now, rows wanted)
MatrixProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceSettings:
    """How a matrix is run; nothing here changes a row.

    ``redo``: methods whose rows are dropped and computed again; "all" for every row, and for
    the founders in the plan's ``work`` folder.
    """

    out: Path
    workers: int = 2
    redo: tuple[str, ...] = ()
    progress: MatrixProgress = lambda *_: None


def compute_evidence(plan: EvidencePlan, settings: EvidenceSettings) -> list[EvidenceRow]:
    """Compute every missing cell; returns all rows of ``out``, asked for now or earlier.

    The rows are written whole after each finished job, so that a kill loses the jobs under
    way. A failed cell is a row with its error, and computed again by the next call. Raises
    RunError where rows of another configuration or other data would stand beside the new ones.
    """
    path = settings.out / ROWS
    with _locked(settings.out), _locked(plan.work):
        rows = _rows_to_keep(path, plan, settings.redo)
        table = {row.key: row for row in rows}
        cells = plan.cells()

        def done() -> int:
            return sum(key in table and table[key].error is None for key in cells)

        shutil.rmtree(plan.scratch, ignore_errors=True)  # what a killed run left
        if _ALL in settings.redo:
            shutil.rmtree(plan.founders, ignore_errors=True)
        settings.progress("", done(), len(cells))
        for what, fresh in _computed(list(plan.expansions(rows)), settings.workers):
            table |= {row.key: row for row in fresh}
            if fresh:
                write_evidence(table.values(), path)
            settings.progress(what, done(), len(cells))
    return sorted(table.values(), key=lambda row: row.key)


def _rows_to_keep(path: Path, plan: EvidencePlan, redo: Sequence[str]) -> list[EvidenceRow]:
    """The rows there are, without what is to be done again; raises RunError for foreign ones."""
    rows = read_evidence(path) if path.exists() else []
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
) -> Iterator[tuple[str, list[EvidenceRow]]]:
    """What each job was and its rows, as they are finished; founders come without rows.

    A job is handed out when a worker is free: newcomers whose founders are there come first.
    """
    waiting: dict[Founding, list[Expansion]] = {}
    for expansion in expansions:
        waiting.setdefault(expansion.founding, []).append(expansion)
    foundings, ready = deque(waiting), deque[Expansion]()
    running: dict[Future[list[EvidenceRow]], Job] = {}
    with _open_pool(min(workers, len(expansions))) as pool:
        while running or ready or foundings:
            while len(running) < max(1, workers) and (ready or foundings):
                job = ready.popleft() if ready else foundings.popleft()
                running[pool.submit(carry_out, job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise RunError(
                        "evidence: a worker process died, perhaps for lack of memory"
                    ) from error
                if error is not None:
                    _LOG.error("%s: failed", job.title, exc_info=error)
                    lost = [job] if isinstance(job, Expansion) else waiting[job]
                    yield job.title, [row for each in lost for row in failed_rows(each, error)]
                    continue
                if isinstance(job, Founding):
                    ready += waiting[job]
                yield job.title, future.result()


class _HereExecutor(Executor):
    """Runs every job at once in this process: for tests, and for a debugger."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _open_pool(workers: int) -> Executor:
    if workers < 1:
        return _HereExecutor()
    # One thread a worker: the sums of a matrix product then have one order. Read at start-up.
    os.environ["OMP_NUM_THREADS"] = "1"
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )


def _start_worker() -> None:
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)  # its strategy tells of every average
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A pool's worker that lost its parent would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else writes ``folder`` meanwhile; raises RunError where somebody does."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{folder}: another evidence run is writing here") from error
        yield
    finally:
        os.close(handle)
