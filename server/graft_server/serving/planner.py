"""Which target domains are served now: pure, from the policy, the clock and what has happened."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from graft.core.files import replace_file
from graft_server.serving.policy import ServingPolicy

_FILE: Final = "state/serving.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A domain that is being served from the catalogue of the first ``base`` rounds, since
    ``began_s`` (epoch seconds)."""

    domain_id: str
    base: int
    began_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Failures:
    """How often on end a domain has failed, and when it did last, in epoch seconds."""

    count: int
    last_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingState:
    """What outlives a restart: who is being served, when the last of them began, who failed."""

    open: tuple[Arrival, ...] = ()
    last_start_s: float | None = None
    failures: Mapping[str, Failures] = field(default_factory=dict)

    def begin(self, domain_id: str, base: int, now_s: float) -> "ServingState":
        """The state with a domain that is served from now on."""
        arrival = Arrival(domain_id=domain_id, base=base, began_s=now_s)
        return replace(self, open=(*self.open, arrival), last_start_s=now_s)

    def end(self, domain_id: str, now_s: float, *, failed: bool) -> "ServingState":
        """The state after a domain was served, or failed."""
        failures = dict(self.failures)
        before = failures.pop(domain_id, Failures(count=0, last_s=now_s))
        if failed:
            failures[domain_id] = Failures(count=before.count + 1, last_s=now_s)
        left = tuple(each for each in self.open if each.domain_id != domain_id)
        return replace(self, open=left, failures=failures)


def due_domains(
    waiting: Sequence[str],
    state: ServingState,
    policy: ServingPolicy,
    now_s: float,
    online: Collection[str],
) -> tuple[str, ...]:
    """The domains to begin with now, those that failed less often first, then in their order.

    Parameters
    ----------
    waiting : sequence of str
        Domains that want a model, in the order in which they came.
    state, policy : ServingState, ServingPolicy
        Who is being served, and what bounds it.
    now_s : float
        Epoch seconds. A clock that was set back delays nobody by more than a wait.
    online : collection of str
        The domains whose devices can be asked.

    Returns
    -------
    tuple of str
        At most as many as ``at_once`` leaves room for, and one where ``every_s`` is a time.
    """
    if policy.is_quiet(now_s):
        return ()
    room = policy.at_once - len(state.open)
    if policy.every_s:
        room = min(room, 1)
        if state.last_start_s is not None and 0 <= now_s - state.last_start_s < policy.every_s:
            return ()
    open_now = {each.domain_id for each in state.open}

    def failures(domain_id: str) -> int:
        failed = state.failures.get(domain_id)
        return failed.count if failed else 0

    def is_due(domain_id: str) -> bool:
        if domain_id not in online or domain_id in open_now:
            return False
        failed = state.failures.get(domain_id)
        wait_s = policy.retry_after_s(failed.count) if failed else 0.0
        return failed is None or not 0 <= now_s - failed.last_s < wait_s

    due = [domain_id for domain_id in dict.fromkeys(waiting) if is_due(domain_id)]
    return tuple(sorted(due, key=failures)[: max(0, room)])


def read_serving(server: Path) -> ServingState:
    """The state that a server wrote last; an empty one where it wrote none, or it cannot be read.

    Without it nothing is lost: a domain that was being served waits again.
    """
    try:
        table = json.loads((server / _FILE).read_text("utf-8"))
        return ServingState(
            open=tuple(Arrival(**each) for each in table["open"]),
            last_start_s=table["last_start_s"],
            failures={name: Failures(**each) for name, each in table["failures"].items()},
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ServingState()


def write_serving(server: Path, state: ServingState) -> None:
    """Write the state, durably: a domain is begun with only when that is written."""
    replace_file(server / _FILE, json.dumps(asdict(state)).encode())
