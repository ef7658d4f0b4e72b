"""Eight people of the embedded IMU world, and a system that is quick to found and expand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from fakes import RUN, SIGNER, MemoryStore, SpoiledEdge, world_devices, world_store
from graft_server.model_store import find_fault
from graft_simulation.in_process import LocalEdge

from graft.core.config import (
    DeviceConfig,
    ExpansionConfig,
    PolicyConfig,
    SelectionConfig,
    TrainingConfig,
)
from graft.core.exchange import Request, Response
from graft.core.ports import Edge
from graft.core.records import LedgerEntry, ModelCard, SystemState
from graft.core.results import result_row, run_hash
from graft.data.synthetic.imu import ImuWorld
from graft.rounds import Round, expand_system, train_initial_domains
from graft.rounds.budget import Budgets
from graft.wire.sizes import EncodedSizes

WORLD = ImuWorld(8, 40, seed=0)
INITIAL_DOMAINS = tuple(WORLD.domain_ids[:3])
ARRIVING = (tuple(WORLD.domain_ids[3:5]), tuple(WORLD.domain_ids[5:7]))
CONFIG = ExpansionConfig(
    method="hat",
    comparisons=("hat-initial", "label-only", "finetuned-same"),
    selection=SelectionConfig(num_sources=2),
    training=TrainingConfig(epochs=2, max_steps=6, batch_size=16),
    devices=DeviceConfig(architectures=("cnn-small", "mlp")),
    policy=PolicyConfig(min_class_count=1),
)


def keep(request: Request, response: Response) -> Response:
    return response


@dataclass
class System:
    """One system in this process; ``change`` spoils answers on their way up."""

    config: ExpansionConfig = CONFIG
    change: Callable[[Request, Response], Response] = keep
    store: MemoryStore = field(default_factory=lambda: world_store(WORLD))
    entries: list[LedgerEntry] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    exchanges: list[tuple[Request, Response]] = field(default_factory=list)

    def edge(self) -> Edge:
        devices = world_devices(WORLD, self.config, self.store, self.entries.append)
        local = LocalEdge(RUN, WORLD.domain_ids, devices, self.entries.append)

        def heard(request: Request, response: Response) -> Response:
            self.requests.append(request)
            self.exchanges.append((request, response))
            return self.change(request, response)

        return SpoiledEdge(local, heard)

    def admit(self, card: ModelCard) -> ModelCard:
        return SIGNER.sign(card)

    def found(self, initial_domains: tuple[str, ...] = INITIAL_DOMAINS) -> Round:
        return train_initial_domains(initial_domains, self.edge(), self.admit)

    def expand(self, state: SystemState, targets: tuple[str, ...] = ARRIVING[0]) -> Round:
        fault = partial(find_fault, store=self.store, task=WORLD.task, config=self.config)
        budgets = Budgets(self.config, WORLD.task, EncodedSizes())
        return expand_system(state, targets, self.edge(), self.admit, self.config, fault, budgets)

    def grow(self) -> tuple[list[Round], str]:
        """Initial domains and both rounds, and the run's hash."""
        rounds = [self.found()]
        for targets in ARRIVING:
            rounds.append(self.expand(rounds[-1].state, targets))
        rows = [result_row(report) for each in rounds for report in each.reports]
        return rounds, run_hash(rows, self.entries)


@dataclass(frozen=True)
class Grown:
    """A system after its last round, and what it went through."""

    system: System
    rounds: list[Round]
    digest: str
