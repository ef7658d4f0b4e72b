"""Eight people of the embedded IMU world, and a system that is quick to found and expand."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fakes import RUN, SIGNER, MemoryStore, SpoiledEdge, world_devices, world_store
from graft_simulation.in_process import LocalEdge

from graft.core.config import (
    DeviceConfig,
    ExpansionConfig,
    PolicyConfig,
    SelectionConfig,
    TrainingConfig,
)
from graft.core.ports import Edge
from graft.core.records import Answer, LedgerEntry, ModelCard, Order, SystemState
from graft.core.results import result_row, run_hash
from graft.data.synthetic.imu import ImuWorld
from graft.rounds import Round, expand_system, found_system

WORLD = ImuWorld(8, 40, seed=0)
FOUNDERS = tuple(WORLD.domain_ids[:3])
ARRIVING = (tuple(WORLD.domain_ids[3:5]), tuple(WORLD.domain_ids[5:7]))
CONFIG = ExpansionConfig(
    method="hat",
    comparisons=("hat-founders", "label-only", "finetuned-same"),
    selection=SelectionConfig(num_sources=2),
    training=TrainingConfig(epochs=2, max_steps=6, batch_size=16),
    devices=DeviceConfig(architectures=("cnn-small", "mlp")),
    policy=PolicyConfig(min_class_count=1),
)


def keep(order: Order, answer: Answer) -> Answer:
    return answer


@dataclass
class System:
    """One system in this process; ``change`` spoils answers on their way up."""

    config: ExpansionConfig = CONFIG
    change: Callable[[Order, Answer], Answer] = keep
    store: MemoryStore = field(default_factory=lambda: world_store(WORLD))
    entries: list[LedgerEntry] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)

    def edge(self) -> Edge:
        devices = world_devices(WORLD, self.config, self.store, self.entries.append)
        local = LocalEdge(RUN, WORLD.domain_ids, devices, self.entries.append)

        def heard(order: Order, answer: Answer) -> Answer:
            self.orders.append(order)
            return self.change(order, answer)

        return SpoiledEdge(local, heard)

    def admit(self, card: ModelCard) -> ModelCard:
        return SIGNER.sign(card)

    def found(self, founders: tuple[str, ...] = FOUNDERS) -> Round:
        return found_system(founders, self.edge(), self.admit)

    def expand(self, state: SystemState, newcomers: tuple[str, ...] = ARRIVING[0]) -> Round:
        return expand_system(state, newcomers, self.edge(), self.admit, self.config)

    def grow(self) -> tuple[list[Round], str]:
        """Founders and both rounds, and the run's hash."""
        rounds = [self.found()]
        for newcomers in ARRIVING:
            rounds.append(self.expand(rounds[-1].state, newcomers))
        rows = [result_row(report) for each in rounds for report in each.reports]
        return rounds, run_hash(rows, self.entries)


@dataclass(frozen=True)
class Grown:
    """A system after its last round, and what it went through."""

    system: System
    rounds: list[Round]
    digest: str
