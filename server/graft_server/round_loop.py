"""One run from its first round to its last: the one loop of every engine and of the benchmark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from graft.core.config import ExpansionConfig
from graft.core.exchange import Growth
from graft.core.ports import Edge, ModelStore, Progress
from graft.core.records import LedgerEntry, ModelCard, SystemState
from graft.core.results import ResultRow, result_row
from graft.core.tasks import Task
from graft.data.domain import World
from graft.data.splits import schedule_growth, schedule_rounds
from graft.errors import ConfigError, ExpansionFailedError, NodesMissingError
from graft.methods import find_method, require_output
from graft.models import offered_architectures
from graft.models.registry import find_architecture
from graft.rounds import (
    Admission,
    AdmittingEdge,
    Averaging,
    Round,
    average_by_architecture,
    beside,
    expand_system,
    grow_domains,
    train_initial_domains,
)
from graft.rounds.budget import Budgets
from graft.rounds.growth_training import class_mask
from graft.rounds.server import FindFault
from graft.selection.scores import probe_scores, require_sensitivity
from graft.wire.sizes import EncodedSizes
from graft_server.fedavg import FlowerAveraging
from graft_server.forgetting import read_forgotten, retrain_averages, settle
from graft_server.model_store import DirectoryStore, check_stored, find_fault, open_store
from graft_server.observability.progress import RoundProgress
from graft_server.run_folder import RunFolder
from graft_server.signing import open_signer

OnProgress = Callable[[RoundProgress], None]
OnRound = Callable[[int, Sequence[ResultRow], Sequence[LedgerEntry]], None]
# Opens the way to the domains; it gets a function for ledger entries and one for progress.
Connect = Callable[[Callable[[LedgerEntry], None], Progress], Edge]


class RoundClock(Protocol):
    """A simulated clock beside a run: it sees what is asked, and times each finished round."""

    def watch(self, edge: Edge, run: str, record: Callable[[LedgerEntry], None]) -> Edge:
        """The edge to ask in place of this one; ``record`` gets an entry for each message that
        does not reach it."""
        ...

    def time_round(
        self, rows: Sequence[ResultRow], entries: Sequence[LedgerEntry]
    ) -> tuple[list[ResultRow], list[LedgerEntry]]:
        """A finished round's rows and entries with their simulated seconds, in their order."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """What a run needs besides its way to the domains.

    ``folder`` gets the rounds, and an interrupted run goes on from it. ``on_round`` gets (round,
    rows, entries) of each round once it is durable, ``on_progress`` a ``RoundProgress`` whenever a
    response comes. Without a ``clock`` no time is simulated. ``planned`` are the domain ids of each
    round, and ``growing`` what domains come back with in each (default: drawn from the
    configuration); ``store`` has the models (default: the folder's).
    Raises ConfigError or ArchitectureError for a configuration that cannot run.
    """

    config: ExpansionConfig
    world: World
    folder: RunFolder
    on_round: OnRound = lambda *_: None
    on_progress: OnProgress = lambda _: None
    clock: RoundClock | None = None
    planned: tuple[tuple[str, ...], ...] | None = None
    growing: Mapping[int, Sequence[Growth]] | None = None
    store: ModelStore | None = None
    # Where no initial domain was served, the first round stays unfinished and may be run again.
    needs_source: bool = False

    def __post_init__(self) -> None:
        for name in self.config.methods:
            find_method(name)
        trained = self.world.task.outputs[0]
        for score in probe_scores(self.config.selection.score, trained.kind):
            if self.config.policy.epsilon is not None:
                require_sensitivity(score, ConfigError)
        require_output(self.config, self.world.task)
        offered_architectures(self.world.task, self.config.devices.architectures)
        if classes := self.config.growth.classes:
            class_mask("growth.classes", self.world.task, classes)
        self.growth()

    def open_store(self) -> ModelStore:
        """The store of the run's models."""
        return self.store or open_store(self.folder.models, self.world.task)

    def schedule(self) -> tuple[tuple[str, ...], ...]:
        """Domain ids by round."""
        if self.planned is not None:
            return self.planned
        config = self.config
        return schedule_rounds(self.world, config.split, config.rounds, config.seed)

    def growth(self) -> Mapping[int, Sequence[Growth]]:
        """By round, what domains of the system come back with."""
        if self.growing is not None:
            return self.growing
        return schedule_growth(self.schedule(), self.config.growth, self.config.seed)


def run_rounds(connect: Connect, settings: RunSettings) -> str:
    """Run what is left of the rounds, each durable before the next; returns the run's hash.

    Raises ExpansionFailedError, which names the domains, where any failed; the others are served.
    RunError where another process works in the folder.
    """
    with settings.folder.locked():
        return _run_rounds(connect, settings)


def _run_rounds(connect: Connect, settings: RunSettings) -> str:
    folder, clock, schedule = settings.folder, settings.clock, settings.schedule()
    growth = settings.growth()
    store, signer = settings.open_store(), open_signer(folder.keys, folder.run_id)
    state = signer.sign_state(folder.load_state())

    def admit(card: ModelCard) -> ModelCard:
        return signer.sign(check_stored(card, store, settings.world.task))

    entries: list[LedgerEntry] = []
    recorded_bytes = 0

    def record(entry: LedgerEntry) -> None:
        nonlocal recorded_bytes
        recorded_bytes += entry.payload_bytes
        entries.append(entry)

    def report(phase: str, done: int, wanted: int) -> None:
        settings.on_progress(
            RoundProgress(
                round_index=state.round_index,
                phase=phase,
                done=done,
                wanted=wanted,
                payload_bytes=recorded_bytes + folder.journal_bytes(),
            )
        )

    edge: Edge = AdmittingEdge(connect(record, report), settings.world.task)
    if clock is not None:
        edge = clock.watch(edge, folder.run_id, record)
    # The join of an interrupted run is in the ledger of its own round already.
    entries[:] = [entry for entry in entries if entry.round_index == state.round_index]

    config = settings.config
    backbones = keep_backbones(store, settings)
    own_store = store if settings.store is None and isinstance(store, DirectoryStore) else None
    averaging = FlowerAveraging(store, admit, settings.world.task, config.seed)
    fault = partial(find_fault, store=store, task=settings.world.task, config=config)
    forgotten = read_forgotten(folder.path)
    if state.round_index >= len(schedule) and forgotten.is_pending(state):
        schedule = (*schedule, *[()] * (state.round_index + 1 - len(schedule)))
    while state.round_index < len(schedule):
        before = own_store.model_ids() if own_store else set()
        state = retrain_averages(state, forgotten, edge, admit, averaging, config)
        arriving = forgotten.arriving(schedule[state.round_index], state)
        offered = forgotten.offered(state)
        refused = forgotten.refused()
        growths = [g for g in growth.get(state.round_index, ()) if g.domain_id not in refused]
        done = _run_round(
            offered, arriving, growths, edge, admit, averaging, config, fault, settings.world.task
        )
        if settings.needs_source and not state.round_index and not done.state.catalogue:
            failed = (f"{f.domain_id}: {f.error}: {f.message}" for f in done.failures)
            raise NodesMissingError(f"round 0: no initial domain was served; {'; '.join(failed)}")
        done = replace(done, state=forgotten.after(state, done.state))
        rows = [result_row(result) for result in done.reports]
        for entry in folder.journal_entries():
            record(entry)
        if clock is not None:
            rows, entries[:] = clock.time_round(rows, entries)
        folder.save_round(done.state, rows, entries, done.profiles, done.peers)
        settings.on_round(state.round_index, rows, tuple(entries))
        entries.clear()
        forgotten = settle(folder)
        state = done.state
        if own_store:
            # What this round pushed stays for now: should its tables be damaged, it runs again.
            cards = (*state.catalogue, *state.architecture_averages)
            own_store.remove(before - backbones - {card.model_id for card in cards})
    digest, failures = folder.finish(max(len(schedule), state.round_index))
    if failures:
        raise ExpansionFailedError(f"{len(failures)} failed: " + "; ".join(failures[:10]))
    return digest


def keep_backbones(store: ModelStore, settings: RunSettings) -> set[str | None]:
    """Have the store offer the backbones of the run's architectures; their ids."""
    if not isinstance(store, DirectoryStore):
        return set()
    task = settings.world.task
    found = [find_architecture(n, task) for n in settings.config.devices.architectures]
    return {store.keep_backbone(each.backbone) for each in found if each.backbone is not None}


def _run_round(
    state: SystemState,
    arriving: Sequence[str],
    growths: Sequence[Growth],
    edge: Edge,
    admit: Admission,
    averaging: Averaging,
    config: ExpansionConfig,
    fault: FindFault,
    task: Task,
) -> Round:
    """Round 0 trains the initial domains and averages their models; each later one expands, and
    domains that come back grow."""
    if growths:
        grown = grow_domains(state, growths, edge, admit, config)
        others = _run_round(state, arriving, (), edge, admit, averaging, config, fault, task)
        return beside(grown, others)
    if not arriving:
        return Round(state=state.admit(()), reports=())
    if state.round_index:
        budgets = Budgets(config, task, EncodedSizes())
        return expand_system(state, arriving, edge, admit, config, fault, budgets)
    trained = train_initial_domains(arriving, edge, admit)
    return average_by_architecture(trained, edge, admit, averaging, config)
