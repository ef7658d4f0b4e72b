"""One run from its first round to its last, whichever way the ServerApp was started."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from graft.core.config import ExpansionConfig
from graft.core.ports import Edge, ModelStore
from graft.core.records import LedgerEntry, ModelCard, Task
from graft.core.results import ResultRow, result_row
from graft.data.domain import World
from graft.data.splits import schedule_rounds
from graft.errors import ExpansionFailedError, PayloadChangedError, PayloadLimitError
from graft.methods import find_method
from graft.models.zoo import offered_architectures
from graft.rounds import average_by_architecture, expand_system, train_initial_domains
from graft.wire.payload.encoding import read_header
from graft_server.fedavg import FlowerAveraging
from graft_server.model_store import open_store
from graft_server.request_log import Progress as EdgeProgress
from graft_server.run_folder import RunFolder
from graft_server.signing import open_signer

Progress = Callable[[int, str, int, int, int], None]
OnRound = Callable[[int, Sequence[ResultRow], Sequence[LedgerEntry]], None]
# Opens the way to the domains; it gets where ledger entries go and where progress is told.
Connect = Callable[[Callable[[LedgerEntry], None], EdgeProgress], Edge]


class Timekeeper(Protocol):
    """A simulated clock beside a run: it sees what is asked, and times what a round was."""

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

    ``on_round`` gets (round, rows, entries) of each round once it is durable.
    ``progress`` gets (round, phase, answers so far, answers wanted, payload bytes so far).
    Without a ``timekeeper`` nothing is simulated, and no time is called so. ``planned``: who
    arrives in which round, where somebody decided it; else it is drawn from the configuration.
    ``store`` None: the run folder's own models.
    """

    config: ExpansionConfig
    world: World
    folder: RunFolder
    on_round: OnRound = lambda *_: None
    progress: Progress = lambda *_: None
    timekeeper: Timekeeper | None = None
    planned: tuple[tuple[str, ...], ...] | None = None
    store: ModelStore | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot run before anything starts.

        Raises ConfigError or ArchitectureError.
        """
        for name in self.config.methods:
            find_method(name)
        offered_architectures(self.world.task, self.config.devices.architectures)
        self.schedule()

    def open_store(self) -> ModelStore:
        """Where models are kept: ``store``, else the run folder's own."""
        return self.store or open_store(self.folder.models, self.world.task)

    def schedule(self) -> tuple[tuple[str, ...], ...]:
        """Domain ids by round."""
        if self.planned is not None:
            return self.planned
        config = self.config
        return schedule_rounds(self.world, config.split, config.rounds, config.seed)


def run_rounds(connect: Connect, settings: RunSettings) -> str:
    """Run what is left of the rounds; returns the run's hash.

    Each finished round is durable before the next begins. Raises ExpansionFailedError, naming
    the domains, where any failed: the rest is finished all the same.
    """
    config, folder, world = settings.config, settings.folder, settings.world
    schedule = settings.schedule()
    state = folder.load_state()
    store = settings.open_store()
    signer = open_signer(folder.keys, folder.run_id)
    # A signature names its run, and a folder may have been renamed since it stopped.
    state = replace(
        state,
        catalogue=tuple(map(signer.sign, state.catalogue)),
        architecture_averages=tuple(map(signer.sign, state.architecture_averages)),
    )

    def admit(card: ModelCard) -> ModelCard:
        return signer.sign(check_card(card, store=store, task=world.task))

    entries: list[LedgerEntry] = []
    recorded_bytes = 0

    def record(entry: LedgerEntry) -> None:
        nonlocal recorded_bytes
        recorded_bytes += entry.payload_bytes
        entries.append(entry)

    nodes = connect(
        record,
        lambda phase, done, wanted: settings.progress(
            state.round_index, phase, done, wanted, recorded_bytes + folder.journal_bytes()
        ),
    )
    keeper = settings.timekeeper
    edge: Edge = keeper.watch(nodes, folder.run_id, record) if keeper else nodes
    # The join of an interrupted run stands in its own round already.
    entries[:] = [entry for entry in entries if entry.round_index == state.round_index]

    while state.round_index < len(schedule):
        arriving = schedule[state.round_index]
        if state.round_index == 0:
            done = train_initial_domains(arriving, edge, admit)
            averaging = FlowerAveraging(store, admit, world.task, config.seed)
            done = average_by_architecture(done, edge, admit, averaging, config)
        else:
            done = expand_system(state, arriving, edge, admit, config)
        rows = [result_row(report) for report in done.reports]
        for entry in folder.journal_entries():
            record(entry)
        if keeper is not None:
            rows, entries[:] = keeper.time_round(rows, entries)
        folder.save_round(done.state, rows, entries, done.profiles)
        settings.on_round(state.round_index, rows, tuple(entries))
        entries.clear()
        state = done.state
    digest, failures = folder.finish(len(schedule))
    if failures:
        raise ExpansionFailedError(f"{len(failures)} failed: " + "; ".join(failures[:10]))
    return digest


def check_card(card: ModelCard, *, store: ModelStore, task: Task) -> ModelCard:
    """The card, if it describes what the store holds and fits the task.

    Raises PayloadChangedError where sizes or architecture differ from the stored payload,
    PayloadLimitError where mask or centroids have another shape than the model.
    """
    exact = store.part(card.model_id, "exact")
    architecture, shapes, _ = read_header(exact)
    held = (
        architecture,
        len(exact),
        store.num_bytes(card.model_id, "base"),
        store.num_bytes(card.model_id, "residual"),
    )
    announced = (card.architecture, card.payload_bytes, card.base_bytes, card.residual_bytes)
    if held != announced:
        raise PayloadChangedError(
            f"card of {card.domain_id}: announces {announced}, the store holds {held}"
        )
    num_classes, num_features = shapes["head.weight"]
    centroids_CF = card.centroids_CF
    if card.class_mask_C.shape != (num_classes,) or num_classes != task.num_classes:
        raise PayloadLimitError(
            f"card of {card.domain_id}: got a mask of {card.class_mask_C.shape}, "
            f"wanted ({task.num_classes},)"
        )
    if centroids_CF is not None and centroids_CF.shape != (num_classes, num_features):
        raise PayloadLimitError(
            f"card of {card.domain_id}: got centroids of {centroids_CF.shape}, "
            f"wanted {(num_classes, num_features)}"
        )
    return card
