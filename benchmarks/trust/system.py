"""One small system in this process: sources, liars among them, targets who learn from both."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from attackers import (
    BETRAYED_CLASS,
    CALLED_CLASS,
    TRIGGER_CLASS,
    LyingWorld,
    betray_class,
    flatter,
    forge_centroids,
    permute_labels,
    plant_backdoor,
    scale_logits,
    shift_labels,
    spoil_parameters,
    with_trigger,
)
from graft_server.model_store import open_store
from graft_server.signing import open_signer
from graft_simulation.in_process import LocalEdge
from graft_simulation.simulated_devices import devices_in_memory, simulated_factory

from graft.core.config import ExpansionConfig
from graft.core.exchange import TrainResult
from graft.core.payload import decode_payload
from graft.core.records import DomainProfile, LedgerEntry, ModelCard, SystemState
from graft.core.seeding import stream
from graft.data.domain import World
from graft.data.splits import split_rows
from graft.data.synthetic.imu import ImuWorld
from graft.models import Network, network_from
from graft.rounds import expand_system, train_initial_domains
from graft.selection.source_checks import MAX_LOGIT, MAX_TIMES_MEDIAN
from graft.training import predict_in_batches

RUN = "poison"
_VISITS = 4
ATTACKS = ("flattering", "permuted", "backdoor", "spoiled", "forged")
# Attackers who know the defences; each has a flattering profile besides.
ADAPTIVE = ("sybils", "one-class", "bound")
# A source is rejected above four times the median |logit| of those offered with it.
_UNDER_THE_BOUND = 0.9


@dataclass(frozen=True)
class Outcome:
    """Each target's accuracy, and means: attack success rate, share of liars among sources, and how
    many windows of the betrayed class are called the other one."""

    accuracies: list[float]
    trigger_rate: float
    liars_share: float
    betrayed_rate: float | None = None


class LaterVisit(ImuWorld):
    """The same people another day: the same activities in the same turn, recorded anew."""

    def __init__(self, num_domains: int, config: ExpansionConfig, visit: int) -> None:
        super().__init__(num_domains, config.world.windows_per_domain, config.seed)
        self._visit = visit

    def _stream(self, domain_id: str, purpose: str) -> np.random.Generator:
        anew = ("visit", self._visit) if purpose == "windows" else ()
        return stream("imu-world", self._seed, domain_id, purpose, *anew)


@dataclass
class Village:
    """Initial domains of one seed, trained once; every attack replaces the liars' cards alone."""

    config: ExpansionConfig
    folder: Path
    num_honest: int
    num_liars: int
    num_targets: int
    profiles: dict[str, DomainProfile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.set_num_threads(1)
        size = self.num_honest + self.num_liars + self.num_targets
        self.world = ImuWorld(size, self.config.world.windows_per_domain, self.config.seed)
        self.signer = open_signer(self.folder / "keys", RUN)
        self.store = open_store(self.folder / "models", self.world.task)
        domain_ids = self.world.domain_ids
        self.targets = tuple(domain_ids[: self.num_targets])
        self.everyone_lying = tuple(domain_ids[self.num_targets :][: self.num_liars])
        self.clean = self._found(self.world, domain_ids[-self.num_honest :])
        self._kept: dict[str, dict[str, ModelCard]] = {}

    def liars(self, share: float) -> tuple[str, ...]:
        """Those who stand beside the honest, so many that they are ``share`` of all sources."""
        return self.everyone_lying[: round(share / (1 - share) * self.num_honest)]

    def attacked(self, attack: str, share: float) -> SystemState:
        """The system after round 0: the same honest initial domains, and liars beside them."""
        lies = self._lies(attack)
        cards = [*self.clean.catalogue, *(lies[domain_id] for domain_id in self.liars(share))]
        return replace(self.clean, catalogue=tuple(sorted(cards, key=lambda card: card.domain_id)))

    def _lies(self, attack: str) -> dict[str, ModelCard]:
        if attack not in self._kept:
            liars = self.everyone_lying
            honest = {} if attack == "honest" else self._lies("honest")
            if attack == "honest":
                lies = self._trained(liars, lambda data: data)
            elif attack == "permuted":
                lies = self._trained(liars, permute_labels)
            elif attack == "backdoor":
                trained = self._trained(liars, plant_backdoor)
                lies = {d: replace(trained[d], profile=honest[d].profile) for d in liars}
            elif attack == "flattering":
                lies = self._flattering(self._lies("permuted"))
            elif attack == "sybils":
                lies = self._flattering(self._trained(liars, shift_labels))
            elif attack == "one-class":
                lies = self._flattering(self._trained(liars, betray_class))
            elif attack == "bound":
                usual = np.median([self._mean_logit(card) for card in honest.values()])
                bound = _UNDER_THE_BOUND * min(MAX_TIMES_MEDIAN * usual, MAX_LOGIT)
                lies = {
                    d: scale_logits(card, self.store, bound / self._mean_logit(card))
                    for d, card in self._lies("sybils").items()
                }
            elif attack == "spoiled":
                lies = {d: spoil_parameters(card, self.store) for d, card in honest.items()}
            else:
                lies = {d: forge_centroids(card) for d, card in honest.items()}
            self._kept[attack] = {d: self.signer.sign(card) for d, card in lies.items()}
        return self._kept[attack]

    def _flattering(self, cards: dict[str, ModelCard]) -> dict[str, ModelCard]:
        wooed = self._target_profiles()
        return {domain_id: flatter(card, wooed) for domain_id, card in cards.items()}

    def _mean_logit(self, card: ModelCard) -> float:
        """Mean |logit| on the source's own rows."""
        x = torch.from_numpy(self.world.load(card.domain_id).x)
        return float(predict_in_batches(self._network(card), x).abs().mean())

    def _trained(self, liars: tuple[str, ...], spoil) -> dict[str, ModelCard]:
        state = self._found(LyingWorld(self.world, liars, spoil), liars)
        return {card.domain_id: card for card in state.catalogue}

    def _found(self, world: World, initial_domains: Sequence[str]) -> SystemState:
        done = train_initial_domains(
            initial_domains, self._edge(world, self.config), self.signer.sign
        )
        assert not done.failures, done.failures
        return done.state

    def _target_profiles(self) -> list[DomainProfile]:
        config = replace(self.config, method="label-only", comparisons=())
        done = self.expand_round(self.clean, config)
        return list(done.profiles)

    def expand_round(self, state: SystemState, config: ExpansionConfig):
        edge = self._edge(self.world, config)
        return expand_system(state, self.targets, edge, self.signer.sign, config)

    def expand(self, state: SystemState, liars: Sequence[str], config: ExpansionConfig) -> Outcome:
        """All target domains learn by ``config.method``."""
        done = self.expand_round(state, config)
        assert not done.failures, done.failures
        reports = [r for r in done.reports if isinstance(r, TrainResult)]
        sources = [d for r in reports for d in r.source_domains]
        return Outcome(
            accuracies=[self._accuracy(r) for r in sorted(reports, key=lambda r: r.domain_id)],
            trigger_rate=float(np.mean([self._trigger_rate(r) for r in reports])),
            liars_share=float(np.mean([d in liars for d in sources])) if sources else 0.0,
            betrayed_rate=float(np.nanmean([self._betrayed_rate(r) for r in reports])),
        )

    def backdoor_works(self) -> float:
        """The trigger rate of the backdoored models themselves, on their own test rows."""
        cards = self._lies("backdoor").values()
        return float(np.mean([self._rate(card, card.domain_id) for card in cards]))

    def _trigger_rate(self, report: TrainResult) -> float:
        assert report.card is not None
        return self._rate(report.card, report.domain_id)

    def _accuracy(self, report: TrainResult) -> float:
        """Accuracy on later recordings of the same person: its own test windows are some 40, in
        eight stretches of one activity, and would hide a difference of five points."""
        said_N, y_N = self._later_visits(report)
        return float((said_N == y_N).mean())

    def _betrayed_rate(self, report: TrainResult) -> float:
        """NaN for a person who never does what the betrayed class is."""
        said_N, y_N = self._later_visits(report)
        own_N = said_N[y_N == BETRAYED_CLASS]
        return float((own_N == CALLED_CLASS).mean()) if len(own_N) else float("nan")

    def _later_visits(self, report: TrainResult) -> tuple[np.ndarray, np.ndarray]:
        """What the target's model says of its later recordings, and their classes."""
        assert report.card is not None
        network, said, true = self._network(report.card), [], []
        for visit in range(1, _VISITS + 1):
            data = LaterVisit(len(self.world.domain_ids), self.config, visit).load(report.domain_id)
            said.append(predict_in_batches(network, torch.from_numpy(data.x)).argmax(1).numpy())
            true.append(data.y_N)
        return np.concatenate(said), np.concatenate(true)

    def _network(self, card: ModelCard) -> Network:
        payload = self.store.part(card.model_id, "exact")
        parameters = decode_payload(payload, None, None)[1]
        return network_from(card.architecture, self.world.task, parameters)

    def _rate(self, card: ModelCard, domain_id: str) -> float:
        """Share of a domain's test rows of other classes that the trigger turns into its class."""
        network = self._network(card)
        data = self.world.load(domain_id)
        test_N = split_rows(data, self.config.split, self.config.seed).test_N
        rows_N = test_N[data.y_N[test_N] != TRIGGER_CLASS]
        logits_NC = predict_in_batches(network, torch.from_numpy(with_trigger(data.x[rows_N])))
        return float((logits_NC.argmax(1) == TRIGGER_CLASS).double().mean())

    def _edge(self, world: World, config: ExpansionConfig) -> LocalEdge:
        entries: list[LedgerEntry] = []
        factory = simulated_factory(config, world, RUN, self.signer.public_key, self.store)
        devices = devices_in_memory(factory, self.store, entries.append)
        return LocalEdge(RUN, world.domain_ids, devices, entries.append)
