"""What one worker does: train the initial domains of a data set and seed, or serve one method's
target domains. Both are runs of the one round loop, within this process."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from graft_server.round_loop import RunSettings, run_rounds
from graft_server.run_folder import RunFolder
from graft_simulation.in_process import connect_in_process

from graft.bench.plan import Expansion, InitialTraining, Job
from graft.bench.rows import BenchmarkRow
from graft.core.config import WorldConfig
from graft.core.ledger import is_upload, total_bytes
from graft.core.records import LedgerEntry
from graft.core.results import ResultRow
from graft.data.domain import World
from graft.data.worlds import open_world
from graft.errors import ExpansionFailedError


class CachedWorld:
    """A World that loads every domain once: a matrix asks for each of them hundreds of times."""

    def __init__(self, world: World) -> None:
        self.task, self.domain_ids, self.person = world.task, world.domain_ids, world.person
        self.load = cache(world.load)


def run_job(job: Job) -> list[BenchmarkRow]:
    """Do a job; the initial domains' gives no rows."""
    if isinstance(job, Expansion):
        return expand(job)
    train(job)
    return []


def train(job: InitialTraining) -> None:
    """Train the initial domains, unless their run is complete already.

    Raises ExpansionFailedError where one failed, and leaves none of their models: a smaller
    catalogue would be another experiment.
    """
    folder = RunFolder(job.folder)
    if folder.count_rounds():
        return
    world = _world(job.config.world, job.config.seed, job.data_digest)
    if (folder.path / "run.toml").exists():
        folder.resume()
    else:
        folder.begin(job.config, world)
    settings = RunSettings(
        config=job.config, world=world, folder=folder, planned=(job.initial_domains,)
    )
    try:
        run_rounds(connect_in_process(settings, compiled=job.compiled), settings)
    except ExpansionFailedError as error:
        shutil.rmtree(job.folder)
        raise ExpansionFailedError(f"initial domains of {job.title}: {error}") from error


def expand(job: Expansion) -> list[BenchmarkRow]:
    """A row for each target domain of the job; one that fails has a row that names its error.

    The run goes on from the initial domains' round in a temporary folder, with links to their
    models.
    """
    config, initial = job.config, job.initial_training.folder
    world = _world(config.world, config.seed, job.initial_training.data_digest)
    rows: list[BenchmarkRow] = []

    def on_round(_: int, results: Sequence[ResultRow], entries: Sequence[LedgerEntry]) -> None:
        rows.extend(_row(result, entries, job, world) for result in results)

    job.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.scratch) as name:
        folder = RunFolder(Path(name) / "run")
        folder.begin(config, world)
        shutil.copytree(initial / "rounds", Path(name) / "run" / "rounds")
        shutil.copytree(initial / "models", Path(name) / "run" / "models", copy_function=os.link)
        settings = RunSettings(
            config=config,
            world=world,
            folder=folder,
            on_round=on_round,
            planned=(job.initial_training.initial_domains, job.domain_ids),
        )
        with contextlib.suppress(ExpansionFailedError):
            compiled = job.initial_training.compiled
            run_rounds(connect_in_process(settings, compiled=compiled), settings)
    return rows


def failed_rows(job: Expansion, error: BaseException) -> list[BenchmarkRow]:
    """The rows of a job that broke off."""
    world = open_world(job.config.world, job.config.seed)
    failed: dict[str, Any] = {"error": type(error).__name__, "error_message": str(error)}
    return [_row(ResultRow(domain_id=d, method=job.config.method, round_index=1, **failed), (), job,
                 world) for d in job.domain_ids]  # fmt: skip


@lru_cache(maxsize=4)
def _world(config: WorldConfig, seed: int, data_digest: str) -> CachedWorld:
    """The world as long as its data stay what ``data_digest`` says."""
    return CachedWorld(open_world(config, seed))


def _row(
    result: ResultRow, entries: Sequence[LedgerEntry], job: Expansion, world: World
) -> BenchmarkRow:
    key = (result.domain_id, result.method)
    charged = [entry for entry in entries if (entry.domain_id, entry.method) == key]
    same = ("accuracy", "macro_f1", "num_labelled", "num_unlabelled", "num_test",
            "peak_memory_bytes", "architecture", "error", "error_message")  # fmt: skip
    return BenchmarkRow(
        **job.key(result.domain_id)._asdict(),
        **{name: getattr(result, name) for name in same},
        person=world.person(result.domain_id),
        bytes_up=total_bytes(charged, is_upload),
        bytes_down=total_bytes(charged, lambda entry: not is_upload(entry)),
        device_s=None if job.initial_training.compiled else result.compute_s,
        sources=result.source_domains,
        config_digest=job.config_digest,
        data_digest=job.initial_training.data_digest,
    )
