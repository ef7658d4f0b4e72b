"""Budgets: what serving one target domain by one method may cost, planned before it is asked.

The server counts what every message and transfer of a target domain has cost, and asks for no more
than fits: it leaves out candidates and sources, sends int8 bases alone, or falls back to training
on the domain's own labels in fewer steps. A device keeps to the allowance of its request.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import Final, TypeVar

from graft.core.config import ExpansionConfig
from graft.core.exchange import (
    Failure,
    ProbeRequest,
    ProfileRequest,
    Response,
    TrainRequest,
    TrainResult,
    failure_of,
)
from graft.core.ports import MessageSizes
from graft.core.records import NO_LIMITS, Allowance, DomainProfile, ModelCard
from graft.core.tasks import Task
from graft.errors import BudgetError, ConfigError
from graft.methods import find_method
from graft.rounds.exchange_cost import Account, ExchangeCosts, effective_method, less
from graft.selection import RankedCards

Item = TypeVar("Item")
# Sources behind the first that does not fit are tried one by one; smaller ones may fit still.
_TRIED_BEHIND: Final = 16


class Budgets:
    """The budgets of one round's target domains.

    Parameters
    ----------
    config : ExpansionConfig
        Its ``budget``, and what decides a training's cost.
    task : Task, optional
        The task of the domains.
    sizes : MessageSizes, optional
        Encoded lengths: nothing is estimated. Without both, ConfigError is raised where the run or
        a device sets a limit.
    """

    def __init__(
        self, config: ExpansionConfig, task: Task | None = None, sizes: MessageSizes | None = None
    ) -> None:
        self._config, self._given = config, (task, sizes)
        self._limits = Allowance(**asdict(config.budget))
        self._accounts: dict[tuple[str, str], Account] = {}

    @property
    def _task(self) -> Task:
        if self._given[0] is None:
            raise ConfigError("budget: got no task to plan by, wanted that of the domains")
        return self._given[0]

    @property
    def _sizes(self) -> MessageSizes:
        if self._given[1] is None:
            raise ConfigError("budget: got no message sizes to plan by, wanted some")
        return self._given[1]

    @cached_property
    def _costs(self) -> ExchangeCosts:
        return ExchangeCosts(self._config, self._task, self._sizes)

    def profile_request(self, domain_id: str, index: int) -> ProfileRequest:
        """The request for a profile; it goes out whatever the budget, for nothing is smaller."""
        request = ProfileRequest(domain_id=domain_id, round_index=index)
        if self._limits == NO_LIMITS:
            return request
        return replace(
            request,
            allowance=Allowance(
                down_bytes=self._limits.down_bytes,
                up_bytes=less(self._limits.up_bytes, self._sizes.join_bytes(domain_id)),
            ),
        )

    def open(self, request: ProfileRequest, profile: DomainProfile, methods: Sequence[str]) -> None:
        """Open an account for each method, where run or device set a limit."""
        limits = self._limits.least(profile.limits or NO_LIMITS)
        if limits == NO_LIMITS:
            return
        down = self._sizes.request_bytes(request)
        up = self._sizes.join_bytes(request.domain_id) + self._sizes.response_bytes(profile)
        for method in methods:
            self._accounts[request.domain_id, method] = Account(
                profile=profile, limits=limits, down_bytes=down, up_bytes=up
            )

    def limits(self, domain_id: str, method: str) -> bool:
        """Whether anything limits this method on this target domain."""
        return (domain_id, method) in self._accounts

    def probe_request(self, request: ProbeRequest) -> ProbeRequest | None:
        """The request with the candidates that fit; None where none does."""
        account = self._accounts.get((request.domain_id, request.method))
        if account is None:
            return request
        pairs = list(zip(request.candidates, request.coarse_distances, strict=True))
        method = find_method(request.method)
        best: RankedCards = []
        limit = "down_bytes"
        for base_only in dict.fromkeys((method.precision == "base", True)):
            fits = partial(self._probe_excess, request, account, base_only)
            fitting, limit_now = _greedy(pairs, fits)
            limit = limit_now or limit
            if len(fitting) > len(best):
                best = fitting
        if len(best) < len(pairs):
            account.leave_out(_share(len(best), len(pairs), "candidates"), limit)
        return self._probe(request, best, account) if best else None

    def probed(self, request: ProbeRequest, response: Response) -> None:
        """Count an answered probe; a ``Failure`` counts too."""
        account = self._accounts.get((request.domain_id, request.method))
        if account is None:
            return
        cost = self._costs.probe(request, account)
        account.down_bytes += cost.down_bytes
        account.device_s += cost.device_s
        account.up_bytes += self._sizes.response_bytes(response)
        account.bases |= {card.model_id for card in request.candidates}

    def train_request(self, request: TrainRequest) -> TrainRequest | Failure:
        """The request, of what has ``limits``, with the sources that fit, best first, or with none
        of them; a ``Failure`` that was sent nowhere where even that does not fit."""
        account = self._accounts[request.domain_id, request.method]
        best, limit = None, None
        exact = find_method(request.method).precision == "exact"
        for base_only in dict.fromkeys((not exact, True)):
            fits = partial(self._train_excess, request, account, base_only and exact)
            fitting, limit_now = _greedy(request.sources, fits)
            limit = limit or limit_now
            if best is None or len(fitting) > len(best.sources):
                best = replace(request, sources=tuple(fitting), base_only=base_only and exact)
        assert best is not None
        planned = self._with_averages(best, account)
        if len(best.sources) < len(request.sources):
            what = _share(len(best.sources), len(request.sources), "sources")
            account.leave_out(what, limit or "down_bytes")
        if best.base_only and best.sources:
            account.leave_out("exact sources: int8 bases in their place", limit or "down_bytes")
        planned = self._with_steps(planned, account)
        if excess := self._costs.training(planned, account).beyond(account):
            left = getattr(account.left(), excess)
            needed = getattr(self._costs.training(planned, account), excess)
            error = BudgetError(
                f"budget of {request.domain_id}: {excess}: got {left:.6g} left, wanted "
                f"{needed:.6g} to train without sources"
            )
            return failure_of(request, error)
        used = effective_method(planned.method, planned.sources, planned.allowance).name
        if used != request.method:
            account.leave_out(f"{request.method}, {used} in its place", limit or "no source")
        return planned

    def explained(self, result: TrainResult | Failure) -> TrainResult | Failure:
        """The result, of what has ``limits``, with what was left out of its requests as well."""
        account = self._accounts[result.domain_id, result.method]
        if isinstance(result, Failure):
            return result
        return replace(result, left_out=(*account.left_out, *result.left_out))

    def _probe(self, request: ProbeRequest, pairs: RankedCards, account: Account) -> ProbeRequest:
        """A probe of these candidates, with what it may cost."""
        asked = replace(
            request,
            candidates=tuple(card for card, _ in pairs),
            coarse_distances=tuple(distance for _, distance in pairs),
            allowance=account.left(),  # its length is that of every other
        )
        return replace(asked, allowance=self._after_request(asked, account))

    def _probe_excess(
        self, request: ProbeRequest, account: Account, base_only: bool, pairs: RankedCards
    ) -> str | None:
        """The limit that a probe of these candidates would pass, with training behind it from as
        many of them as are wanted, the nearest in place of the best."""
        probe = self._costs.probe(self._probe(request, pairs, account), account)
        cards = [card for card, _ in pairs]
        held = account.bases | {card.model_id for card in cards}
        training = TrainRequest(
            domain_id=request.domain_id,
            round_index=request.round_index,
            method=request.method,
            sources=tuple(c.for_fusion() for c in cards[: self._config.selection.num_sources]),
            register=request.method == self._config.method,
            base_only=base_only and find_method(request.method).precision == "exact",
        )
        later = replace(account, bases=held)
        least_training = self._with_steps(replace(training, sources=(), max_steps=1), later)
        for planned in (training, least_training):
            if excess := (probe + self._costs.training(planned, later)).beyond(account):
                return excess
        return None

    def _train_excess(
        self, request: TrainRequest, account: Account, base_only: bool, sources: Sequence[ModelCard]
    ) -> str | None:
        planned = replace(request, sources=tuple(sources), base_only=base_only)
        return self._costs.training(planned, account).beyond(account)

    def _with_averages(self, request: TrainRequest, account: Account) -> TrainRequest:
        """The request with the average model of the device's architecture, where it fits."""
        if not request.architecture_averages:
            return request
        _, own = self._costs.device(account)
        averages = tuple(c for c in request.architecture_averages if c.architecture == own)
        if find_method(request.method).sources_needed != "none" and not request.sources:
            averages = ()
        planned = replace(request, architecture_averages=averages)
        if excess := self._costs.training(planned, account).beyond(account):
            account.leave_out("average model", excess)
            planned = replace(planned, architecture_averages=())
        return planned

    def _with_steps(self, request: TrainRequest, account: Account) -> TrainRequest:
        """The request with its allowance, and with fewer steps where time needs it: those of a
        fallback take longer than many a method."""
        request = replace(request, allowance=account.left())
        left_s = account.left().device_s
        if left_s is not None and not request.sources and not request.max_steps:
            low, high = 1, self._config.training.max_steps
            if self._costs.seconds(request, account) > left_s:
                while low < high:
                    middle = (low + high + 1) // 2
                    if self._costs.seconds(replace(request, max_steps=middle), account) <= left_s:
                        low = middle
                    else:
                        high = middle - 1
                wanted = self._config.training.max_steps
                account.leave_out(_share(low, wanted, "steps"), "device_s")
                request = replace(request, max_steps=low)
        return replace(request, allowance=self._after_request(request, account))

    def _after_request(self, request: ProbeRequest | TrainRequest, account: Account) -> Allowance:
        """What is left once the request has arrived."""
        left = account.left()
        return replace(left, down_bytes=less(left.down_bytes, self._sizes.request_bytes(request)))


def _greedy(
    items: Sequence[Item], excess: Callable[[list[Item]], str | None]
) -> tuple[list[Item], str | None]:
    """As many of the items as fit, the first first, and the limit that left out another."""
    low, high = 0, len(items)
    while low < high:  # the longest beginning that fits; a longer one costs more
        middle = (low + high + 1) // 2 if low or high < len(items) else high
        if excess(list(items[:middle])) is None:
            low = middle
        else:
            high = middle - 1
    fitting, limit = list(items[:low]), None
    for item in items[low : low + _TRIED_BEHIND]:
        found = excess([*fitting, item])
        limit = limit or found
        if found is None:
            fitting.append(item)
    return fitting, limit


def _share(count: int, wanted: int, what: str) -> str:
    return f"{count} of {wanted} {what} kept"
