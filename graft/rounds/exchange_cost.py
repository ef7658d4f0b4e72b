"""What one exchange with a target domain costs: its messages, its transfers and its computing.

Bytes are lengths of encoded messages and of announced parts; seconds are the cost model's, at the
pace of the device's class, and an upper bound of what the simulated clock makes of the answer.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final, TypeVar

from graft.core.config import ExpansionConfig, PolicyConfig
from graft.core.exchange import (
    SHORT_TEXT,
    ProbeRequest,
    Selection,
    TrainRequest,
    TrainResult,
    failure_of,
)
from graft.core.ports import MessageSizes
from graft.core.records import (
    NO_LIMITS,
    Allowance,
    Candidate,
    DomainProfile,
    ModelCard,
    RejectedSource,
    least,
)
from graft.core.results import required_metrics
from graft.core.tasks import Task
from graft.devices import DeviceClass, equip_domain
from graft.errors import BudgetError
from graft.methods import Method, find_method
from graft.methods.cost import read_all
from graft.models import network_cost
from graft.training.cost import WorkloadShape, compute_seconds

LABEL_ONLY: Final = "label-only"
Number = TypeVar("Number", int, float)
UNREGISTERED: Final = "registration (up_bytes)"
# What a device itself leaves out of its answer, in this order.
DEVICE_LEAVES_OUT: Final = ("diagnostics (up_bytes)", "own metrics (up_bytes)", UNREGISTERED)


def effective_method(
    name: str, sources: Sequence[ModelCard], allowance: Allowance | None, *, lacking: bool = False
) -> Method:
    """The method that trains for a request: training on the labels alone within a budget that no
    source fits in, and where a domain that is ``lacking`` streams has no source."""
    method = find_method(name)
    without = method.sources_needed != "none" and not sources
    falls_back = without and (allowance is not None or lacking)
    return find_method(LABEL_ONLY) if falls_back else method


def limit_steps(config: ExpansionConfig, max_steps: int) -> ExpansionConfig:
    """The configuration with at most so many steps; 0: as it is."""
    if not 0 < max_steps < config.training.max_steps:
        return config
    return replace(config, training=replace(config.training, max_steps=max_steps))


def memory_limit(config: ExpansionConfig, policy: PolicyConfig, round_index: int) -> int | None:
    """What bounds the memory of a target domain's device beside its class."""
    return least(config.budget.memory_bytes, policy.max_memory_bytes) if round_index else None


@dataclass(kw_only=True)
class Account:
    """What serving one target domain by one method may cost, has cost, and leaves out."""

    profile: DomainProfile
    limits: Allowance
    down_bytes: int
    up_bytes: int
    device_s: float = 0.0
    bases: set[str] = field(default_factory=set)  # models whose int8 base the device has
    left_out: list[str] = field(default_factory=list)

    def left(self) -> Allowance:
        """What the limits leave."""
        limits = self.limits
        return Allowance(
            down_bytes=less(limits.down_bytes, self.down_bytes),
            up_bytes=less(limits.up_bytes, self.up_bytes),
            device_s=less(limits.device_s, self.device_s),
            memory_bytes=limits.memory_bytes,
        )

    def leave_out(self, what: str, limit: str) -> None:
        """Note what is left out for the sake of a limit."""
        text = f"{what} ({limit})"
        if text not in self.left_out:
            self.left_out.append(text)


@dataclass(frozen=True, slots=True)
class ExchangeCost:
    """What an exchange would cost on top of an account."""

    down_bytes: int = 0
    up_bytes: int = 0
    device_s: float = 0.0
    memory_bytes: int = 0

    def __add__(self, other: "ExchangeCost") -> "ExchangeCost":
        return ExchangeCost(
            self.down_bytes + other.down_bytes,
            self.up_bytes + other.up_bytes,
            self.device_s + other.device_s,
            max(self.memory_bytes, other.memory_bytes),
        )

    def beyond(self, account: Account) -> str | None:
        """The first limit that it passes."""
        for name, left in asdict(account.left()).items():
            if left is not None and getattr(self, name) > left:
                return name
        return None


class ExchangeCosts:
    """The costs of a run's exchanges, by its configuration, its task and encoded lengths."""

    def __init__(self, config: ExpansionConfig, task: Task, sizes: MessageSizes) -> None:
        self._config, self._task, self._sizes = config, task, sizes
        self._devices: dict[str, tuple[DeviceClass, str]] = {}

    def probe(self, request: ProbeRequest, account: Account) -> ExchangeCost:
        """Of a probe."""
        new = {c.model_id: c.base_bytes for c in request.candidates}
        largest = Selection(
            domain_id=request.domain_id,
            candidates=tuple(
                Candidate(model_id=c.model_id, coarse_distance=1.0, joint_score=1.0)
                for c in request.candidates
            ),
            chosen=tuple(c.model_id for c in request.candidates),
            rejected=tuple(_rejected(request.domain_id, c) for c in request.candidates),
        )
        device, _ = self.device(account)
        read = read_all([c.architecture for c in request.candidates], account.profile.num_samples)
        return ExchangeCost(
            down_bytes=self._sizes.request_bytes(request)
            + sum(num_bytes for name, num_bytes in new.items() if name not in account.bases),
            up_bytes=max(self._sizes.response_bytes(largest), self._failure_bytes(request)),
            device_s=compute_seconds(read, self._task, device)
            if account.limits.device_s is not None
            else 0.0,
        )

    def training(self, request: TrainRequest, account: Account) -> ExchangeCost:
        """Of a training request, its transfers, and the least result."""
        request = replace(request, allowance=request.allowance or account.left())
        needed = find_method(request.method).sources_needed
        device, own = self.device(account)
        sources = request.sources
        if needed == "same-architecture":
            sources = tuple(card for card in sources if card.architecture == own)
        fetched = () if needed == "centroids" else sources
        averages = [c for c in request.architecture_averages if c.architecture == own][:1]
        base = request.base_only or find_method(request.method).precision == "base"
        down = sum(_missing_bytes(card, base, account.bases) for card in fetched)
        down += sum(_missing_bytes(card, False, set()) for card in averages)
        down += self._sizes.acknowledgement_bytes() if request.register else 0
        trained = {own, *(card.architecture for card in (*fetched, *averages))}
        memory = max(network_cost(name, self._task).training_memory_bytes for name in trained)
        return ExchangeCost(
            down_bytes=self._sizes.request_bytes(request) + down,
            up_bytes=max(
                self._sizes.response_bytes(self._least_result(request, trained, device.name)),
                self._failure_bytes(request),
            ),
            device_s=self.seconds(request, account) if account.limits.device_s is not None else 0.0,
            memory_bytes=memory + sum(card.payload_bytes for card in (*fetched, *averages)),
        )

    def seconds(self, request: TrainRequest, account: Account) -> float:
        """The most that training takes by the cost model, whichever source the method prefers."""
        device, own = self.device(account)
        method = effective_method(request.method, request.sources, NO_LIMITS)
        names = [
            card.architecture
            for card in request.sources
            if method.sources_needed != "same-architecture" or card.architecture == own
        ]
        num_rows, stated = account.profile.num_samples, account.profile.num_labelled
        num_labelled = num_rows if stated is None else min(stated, num_rows)
        is_centroids = method.sources_needed == "centroids"
        config = limit_steps(self._config, request.max_steps)

        def seconds(trained: str, first: str) -> float:
            used = [first, *names] if first else names
            shape = WorkloadShape(
                task=self._task,
                config=config,
                architecture=own,
                trained_model=trained,
                sources=() if is_centroids else tuple(names),
                used=tuple(used),
                prototypes=len(names) if is_centroids else 0,
                num_labelled=num_labelled,
                num_unlabelled=num_rows - (0 if stated is None else num_labelled),
            )
            return compute_seconds(method.cost(shape), self._task, device)

        firsts = set(names) or {""}
        return max(seconds(trained, first) for trained in {own, *names} for first in firsts)

    def device(self, account: Account) -> tuple[DeviceClass, str]:
        """The account's device and its architecture."""
        domain_id = account.profile.domain_id
        if domain_id not in self._devices:
            self._devices[domain_id] = equip_domain(
                domain_id,
                self._config.seed,
                self._task,
                self._config.devices,
                account.profile.inputs,
                account.limits.memory_bytes,
            )
        return self._devices[domain_id]

    def _least_result(
        self, request: TrainRequest, names: set[str], device_class: str
    ) -> TrainResult:
        """The largest result that has no card, no diagnostics and no metrics of a method's own."""
        cards = (*request.sources, *request.architecture_averages)
        return TrainResult(
            domain_id=request.domain_id,
            round_index=request.round_index,
            method=request.method,
            architecture=max(names, key=lambda name: len(name.encode())),
            device_class=device_class,
            source_domains=tuple(card.domain_id for card in cards),
            metrics=dict.fromkeys(required_metrics(self._task.outputs[0].kind), 1.0),
            compute_s=1.0,
            peak_memory_bytes=2**46,
            rejected=tuple(
                _rejected(request.domain_id, card)
                for card in request.sources
                if self._config.trust.disagreement
            ),
            left_out=tuple(DEVICE_LEAVES_OUT),
        )

    def _failure_bytes(self, request: ProbeRequest | TrainRequest) -> int:
        longest = "x" * SHORT_TEXT
        return self._sizes.response_bytes(
            replace(failure_of(request, BudgetError("")), error=longest, message=longest)
        )


def _missing_bytes(card: ModelCard, base: bool, bases: set[str]) -> int:
    """What a model costs a device that has the int8 bases of some."""
    missing = 0 if card.model_id in bases else card.base_bytes
    return missing if base else min(card.payload_bytes, missing + card.residual_bytes)


def _rejected(by: str, card: ModelCard) -> RejectedSource:
    return RejectedSource(
        by=by, domain_id=card.domain_id, model_id=card.model_id, reason="x" * len("disagreement")
    )


def less(limit: Number | None, spent: Number) -> Number | None:
    """What is left of a limit, 0 or more."""
    return None if limit is None else max(limit - spent, limit - limit)
