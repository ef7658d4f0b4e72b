"""What one worker does: initial domains of a data set and seed, or one method's cells.

Both run in a process that has done others before: what they read again and again is kept.
"""

import tempfile
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

from graft_server.fedavg import FlowerAveraging
from graft_server.model_store import open_store
from graft_server.round_loop import check_card
from graft_server.run_folder import RunFolder
from graft_server.signing import open_signer
from graft_simulation.in_process import LocalEdge
from graft_simulation.simulated_devices import devices_in_memory, simulated_factory

from graft.bench.plan import Expansion, InitialTraining, Job
from graft.bench.rows import BenchmarkRow
from graft.core.config import ExpansionConfig, WorldConfig
from graft.core.ledger import is_upload, total_bytes
from graft.core.ports import ModelStore
from graft.core.records import Failure, LedgerEntry, ModelCard, Task, TrainResult
from graft.core.results import result_row
from graft.data.domain import DomainData, World
from graft.data.worlds import open_world
from graft.errors import ExpansionFailedError
from graft.rounds import average_by_architecture, expand_system, train_initial_domains


class RememberedWorld:
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
        return self._holder(model_id).part(model_id, part)

    def num_bytes(self, model_id: str, part: str) -> int:
        return self._holder(model_id).num_bytes(model_id, part)

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._own or model_id in self._base

    def _holder(self, model_id: str) -> ModelStore:
        return self._own if model_id in self._own else self._base


def carry_out(job: Job) -> list[BenchmarkRow]:
    """Do a job; initial domains give no rows."""
    if isinstance(job, Expansion):
        return expand(job)
    found(job)
    return []


def found(initial_training: InitialTraining) -> None:
    """Train and keep the initial domains' models; nothing to do where they are kept already.

    Raises ExpansionFailedError where an initial domain failed: a smaller catalogue would be another
    experiment.
    """
    folder, config = RunFolder(initial_training.folder), initial_training.config
    if folder.read_state().round_index:
        return
    world = _world(config.world, config.seed, initial_training.data_digest)
    if (folder.path / "run.toml").exists():
        folder.resume()
        folder.load_state()
    else:
        folder.begin(config, world)
    store = open_store(folder.models, world.task)
    signer = open_signer(folder.keys, folder.run_id)
    entries: list[LedgerEntry] = []
    edge = _edge(folder, config, world, store, entries)

    def admit(card: ModelCard) -> ModelCard:
        return signer.sign(check_card(card, store=store, task=world.task))

    done = train_initial_domains(initial_training.initial_domains, edge, admit)
    averaging = FlowerAveraging(store, admit, world.task, config.seed)
    done = average_by_architecture(done, edge, admit, averaging, config)
    if done.failures:
        told = "; ".join(f"{f.domain_id}: {f.error}: {f.message}" for f in done.failures)
        raise ExpansionFailedError(
            f"initial domains of {initial_training.data}, seed {config.seed}: {told}"
        )
    rows = [result_row(report) for report in done.reports]
    folder.save_round(done.state, rows, entries, done.profiles)


def expand(expansion: Expansion) -> list[BenchmarkRow]:
    """A row for each target domain of the job; what fails is a row that names its error."""
    config, initial_domains = expansion.config, RunFolder(expansion.initial_training.folder)
    world = _world(config.world, config.seed, expansion.initial_training.data_digest)
    entries: list[LedgerEntry] = []
    expansion.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=expansion.scratch) as name:
        # The models of target domains are weighed and checked like any, and not kept.
        store = LayeredStore(
            own=open_store(Path(name), world.task),
            base=open_store(initial_domains.models, world.task),
        )
        done = expand_system(
            initial_domains.read_state(),
            expansion.domain_ids,
            _edge(initial_domains, config, world, store, entries),
            partial(check_card, store=store, task=world.task),
            config,
        )
    return [_row(report, entries, expansion, world) for report in done.reports]


def failed_rows(expansion: Expansion, error: BaseException) -> list[BenchmarkRow]:
    """The rows of a job that came to nothing."""
    config = expansion.config
    world = open_world(config.world, config.seed)
    failures = [
        Failure(
            domain_id=domain_id,
            round_index=1,
            method=config.method,
            error=type(error).__name__,
            message=str(error),
        )
        for domain_id in expansion.domain_ids
    ]
    return [_row(failure, [], expansion, world) for failure in failures]


@lru_cache(maxsize=4)
def _world(config: WorldConfig, seed: int, data_digest: str) -> RememberedWorld:
    """The world as long as its data stay what ``data_digest`` says."""
    return RememberedWorld(open_world(config, seed))


def _edge(
    initial_domains: RunFolder,
    config: ExpansionConfig,
    world: World,
    store: ModelStore,
    entries: list[LedgerEntry],
) -> LocalEdge:
    """The way to simulated devices that trust the initial domains' server."""
    public_key = (initial_domains.keys / "server.pub").read_bytes()
    factory = simulated_factory(config, world, initial_domains.run_id, public_key, store)
    devices = devices_in_memory(factory, store, entries.append)
    return LocalEdge(initial_domains.run_id, world.domain_ids, devices, entries.append)


def _row(
    report: TrainResult | Failure, entries: list[LedgerEntry], expansion: Expansion, world: World
) -> BenchmarkRow:
    key = expansion.key(report.domain_id)
    told = result_row(report)
    charged = [
        entry
        for entry in entries
        if (entry.domain_id, entry.method) == (report.domain_id, report.method)
    ]
    return BenchmarkRow(
        **key._asdict(),
        person=world.person(report.domain_id),
        accuracy=told.accuracy,
        macro_f1=told.macro_f1,
        num_labelled=told.num_labelled,
        num_unlabelled=told.num_unlabelled,
        num_test=told.num_test,
        bytes_up=total_bytes(charged, is_upload),
        bytes_down=total_bytes(charged, lambda entry: not is_upload(entry)),
        device_s=told.compute_s,
        peak_memory_bytes=told.peak_memory_bytes,
        architecture=told.architecture,
        sources=told.source_domains,
        error=told.error,
        error_message=told.error_message,
        config_digest=expansion.config_digest,
        data_digest=expansion.initial_training.data_digest,
    )
