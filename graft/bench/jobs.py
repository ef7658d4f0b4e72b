"""What one worker does: train the initial domains of a data set and seed, or serve one method's
target domains.

Both are runs of the one round loop, within this process. A worker does many jobs: the domains that
it has loaded are kept for the next.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from graft_server.model_store import open_store
from graft_server.round_loop import RunSettings, run_rounds
from graft_server.run_folder import RunFolder
from graft_simulation.in_process import connect_in_process

from graft.bench.plan import Expansion, InitialTraining, Job
from graft.bench.rows import BenchmarkRow
from graft.core.config import WorldConfig
from graft.core.ledger import is_upload, total_bytes
from graft.core.ports import ModelStore
from graft.core.records import LedgerEntry, Task
from graft.core.results import ResultRow
from graft.data.domain import DomainData, World
from graft.data.worlds import open_world
from graft.errors import ExpansionFailedError


class CachedWorld:
    """A World that loads every domain once: a matrix asks for each of them hundreds of times."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._loaded: dict[str, DomainData] = {}

    @property
    def task(self) -> Task:
        return self._world.task

    @property
    def domain_ids(self) -> Sequence[str]:
        return self._world.domain_ids

    def person(self, domain_id: str) -> str:
        return self._world.person(domain_id)

    def load(self, domain_id: str) -> DomainData:
        if domain_id not in self._loaded:
            self._loaded[domain_id] = self._world.load(domain_id)
        return self._loaded[domain_id]


class LayeredStore:
    """``ModelStore`` that keeps new models in ``own`` and finds older ones in ``base``."""

    def __init__(self, own: ModelStore, base: ModelStore) -> None:
        self._own = own
        self._base = base

    def put(self, payload: bytes, architecture: str) -> str:
        return self._own.put(payload, architecture)

    def part(self, model_id: str, part: str) -> bytes:
        return self._store_of(model_id).part(model_id, part)

    def num_bytes(self, model_id: str, part: str) -> int:
        return self._store_of(model_id).num_bytes(model_id, part)

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._own or model_id in self._base

    def _store_of(self, model_id: str) -> ModelStore:
        return self._own if model_id in self._own else self._base


def run_job(job: Job) -> list[BenchmarkRow]:
    """Do a job; the initial domains' gives no rows."""
    if isinstance(job, Expansion):
        return expand(job)
    train(job)
    return []


def train(job: InitialTraining) -> None:
    """Train the initial domains; nothing is done where their run is complete already.

    Raises ExpansionFailedError where an initial domain failed, and leaves none of their models: a
    smaller catalogue would be another experiment.
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
        run_rounds(connect_in_process(settings), settings)
    except ExpansionFailedError as error:
        shutil.rmtree(job.folder)
        raise ExpansionFailedError(f"initial domains of {job.title}: {error}") from error


def expand(job: Expansion) -> list[BenchmarkRow]:
    """A row for each target domain of the job; one that fails has a row that names its error.

    The run goes on from the initial domains' round in a folder of its own, of which nothing but
    these rows is kept: the models of target domains are weighed and checked like any.
    """
    config, initial = job.config, RunFolder(job.initial_training.folder)
    world = _world(config.world, config.seed, job.initial_training.data_digest)
    rows: list[BenchmarkRow] = []

    def on_round(_: int, results: Sequence[ResultRow], entries: Sequence[LedgerEntry]) -> None:
        rows.extend(_row(result, entries, job, world) for result in results)

    job.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.scratch) as name:
        folder = RunFolder(Path(name) / "run")
        folder.begin(config, world)
        shutil.copytree(job.initial_training.folder / "rounds", Path(name) / "run" / "rounds")
        settings = RunSettings(
            config=config,
            world=world,
            folder=folder,
            on_round=on_round,
            planned=(job.initial_training.initial_domains, job.domain_ids),
            store=LayeredStore(
                own=open_store(folder.models, world.task),
                base=open_store(initial.models, world.task),
            ),
        )
        with contextlib.suppress(ExpansionFailedError):
            run_rounds(connect_in_process(settings), settings)
    return rows


def failed_rows(job: Expansion, error: BaseException) -> list[BenchmarkRow]:
    """The rows of a job that broke off."""
    config = job.config
    world = open_world(config.world, config.seed)
    return [
        BenchmarkRow(
            **job.key(domain_id)._asdict(),
            person=world.person(domain_id),
            bytes_up=0,
            bytes_down=0,
            error=type(error).__name__,
            error_message=str(error),
            config_digest=job.config_digest,
            data_digest=job.initial_training.data_digest,
        )
        for domain_id in job.domain_ids
    ]


@lru_cache(maxsize=4)
def _world(config: WorldConfig, seed: int, data_digest: str) -> CachedWorld:
    """The world as long as its data stay what ``data_digest`` says."""
    return CachedWorld(open_world(config, seed))


def _row(
    result: ResultRow, entries: Sequence[LedgerEntry], job: Expansion, world: World
) -> BenchmarkRow:
    charged = [
        entry
        for entry in entries
        if (entry.domain_id, entry.method) == (result.domain_id, result.method)
    ]
    return BenchmarkRow(
        **job.key(result.domain_id)._asdict(),
        person=world.person(result.domain_id),
        accuracy=result.accuracy,
        macro_f1=result.macro_f1,
        num_labelled=result.num_labelled,
        num_unlabelled=result.num_unlabelled,
        num_test=result.num_test,
        bytes_up=total_bytes(charged, is_upload),
        bytes_down=total_bytes(charged, lambda entry: not is_upload(entry)),
        device_s=result.compute_s,
        peak_memory_bytes=result.peak_memory_bytes,
        architecture=result.architecture,
        sources=result.source_domains,
        error=result.error,
        error_message=result.error_message,
        config_digest=job.config_digest,
        data_digest=job.initial_training.data_digest,
    )
