"""Target domains that are served beside one another, each a round of its own.

A domain learns from the catalogue as it was when its serving began, and its requests, rows and
cards have the number of that catalogue: seeds and lineage need no more. Its round is saved under
the next number when it ends, so that what is finished is always a sequence of whole rounds.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from graft.core.exchange import Failure, GrowRequest, Request, Response, TrainRequest, TrainResult
from graft.core.files import remove_tree
from graft.core.ledger import total_bytes
from graft.core.ports import Edge, Progress
from graft.core.records import LedgerEntry, ModelCard, SystemState
from graft.core.results import result_row
from graft.errors import EdgeError
from graft.rounds import AdmittingEdge, Round, expand_system
from graft.rounds.admissible import digest_failure
from graft.rounds.budget import Budgets
from graft.wire.sizes import EncodedSizes
from graft_server.forgetting import read_forgotten, settle
from graft_server.model_store import check_stored, find_fault
from graft_server.round_loop import RunSettings
from graft_server.round_schedule import set_order, write_served
from graft_server.run_folder import RunFolder
from graft_server.serving.planner import Arrival, ServingState, write_serving
from graft_server.signing import open_signer

log = logging.getLogger("graft")
# The way to one domain while a block lasts; it gets a function for ledger entries and one for
# progress.
ConnectDomain = Callable[
    [str, Callable[[LedgerEntry], None], Progress], AbstractContextManager[Edge]
]
_WAIT_S: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Served:
    """What came of serving a domain; ``offered`` is the catalogue that it was served from."""

    arrival: Arrival
    offered: SystemState
    done: Round
    entries: Sequence[LedgerEntry]


class Arrivals:
    """Serves domains on threads, and saves each one's round when it ends.

    ``state`` outlives a restart: ``resume`` goes on with the domains that were being served, from
    the same catalogue, so that the replies saved before serve again. The run folder must be locked.
    """

    def __init__(
        self,
        server: Path,
        settings: RunSettings,
        connect: ConnectDomain,
        state: ServingState,
        clock_s: Callable[[], float],
    ) -> None:
        self.state = state
        self.phases: dict[str, str] = {}  # of the domains that are being served
        self._server = server
        self._settings = settings
        self._folder = settings.folder
        self._connect = connect
        self._clock_s = clock_s
        self.store = settings.open_store()
        self._signer = open_signer(self._folder.keys, self._folder.run_id)
        self._pool = ThreadPoolExecutor(thread_name_prefix="serving", max_workers=1_000)
        self._running: dict[Future[_Served], Arrival] = {}
        self._entries: dict[str, list[LedgerEntry]] = {}
        self._orders = threading.Lock()

    def resume(self, enrolled: Sequence[str]) -> None:
        """Go on with what was being served when the server ended; what is over is noted."""
        count = self._folder.count_rounds()
        now = self._folder.read_state()
        owners = {name.decode() for name in now.catalogue.domain_ids.tolist()}
        pending = {card.domain_id for card in read_forgotten(self._folder.path).pending(now)}
        for arrival in self.state.open:
            failed = _saved_failure(self._folder, arrival, count)
            gone = arrival.domain_id not in enrolled or arrival.base > count
            has_model = arrival.domain_id in owners - pending
            if failed is not None or gone or has_model:
                self._end(arrival, failed=bool(failed))
            else:
                self._run(arrival)

    def begin(self, domain_id: str) -> None:
        """Serve a domain from the catalogue as it is now."""
        base, now_s = self._folder.count_rounds(), self._clock_s()
        self.state = self.state.begin(domain_id, base, now_s)
        write_serving(self._server, self.state)  # before a device hears of it
        self._run(self.state.open[-1])

    def save_finished(self, wait_s: float = _WAIT_S) -> list[str]:
        """Save the rounds of the domains that have ended, within a wait; returns the domains.

        Raises what ended a domain's thread: not the domain, but the way to all of them broke.
        """
        ended = []
        try:
            for future in as_completed(list(self._running), timeout=wait_s):
                arrival = self._running.pop(future)
                self._save(future.result())
                ended.append(arrival.domain_id)
                self.phases.pop(arrival.domain_id, None)
                del self._entries[arrival.domain_id]
        except TimeoutError:
            pass
        return ended

    def payload_bytes(self) -> int:
        """The payload of those that are being served, so far."""
        return sum(total_bytes(entries) for entries in self._entries.copy().values())

    def close(self) -> None:
        """Let go of the threads; those that wait for a device end with the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, arrival: Arrival) -> None:
        self.phases[arrival.domain_id], self._entries[arrival.domain_id] = "join", []
        self._running[self._pool.submit(self._serve, arrival)] = arrival

    def _serve(self, arrival: Arrival) -> _Served:
        settings, entries = self._settings, self._entries[arrival.domain_id]
        task, config, domain_id = settings.world.task, settings.config, arrival.domain_id
        base = self._signer.sign_state(self._folder.read_state(arrival.base))
        offered = read_forgotten(self._folder.path).offered(base)

        def progress(phase: str, done: int, wanted: int) -> None:
            self.phases[domain_id] = phase

        with self._connect(domain_id, entries.append, progress) as edge:
            ordering = _Ordering(edge, partial(self._order, domain_id))
            done = expand_system(
                offered,
                [domain_id],
                AdmittingEdge(ordering, task),
                partial(check_stored, store=self.store, task=task),
                config,
                partial(find_fault, store=self.store, task=task, config=config),
                Budgets(config, task, EncodedSizes()),
            )
        return _Served(arrival=arrival, offered=offered, done=done, entries=entries)

    def _order(self, domain_id: str, round_index: int | None) -> None:
        with self._orders:
            set_order(self._server, domain_id, round_index)

    def _save(self, served: _Served) -> None:
        """Save a domain's round as the next one."""
        current = self._signer.sign_state(self._folder.read_state())
        forgotten = read_forgotten(self._folder.path)
        joined = join_round(
            current=forgotten.offered(current),
            base=served.offered,
            done=served.done,
            report_rounds=self._settings.config.trust.report_rounds,
            admit=self._signer.sign,
        )
        state = forgotten.after(current, joined.state)
        rows = [result_row(report) for report in joined.reports]
        arrival = served.arrival
        write_served(self._server, current.round_index, arrival.domain_id)
        steps = self._folder.steps / arrival.domain_id
        self._folder.save_round(
            state, rows, served.entries, joined.profiles, joined.peers,
            base=arrival.base, steps=steps,
        )  # fmt: skip
        self._settings.on_round(current.round_index, rows, served.entries)
        self._end(arrival, failed=any(row.error for row in rows))
        self._order(arrival.domain_id, None)
        settle(self._folder)

    def _end(self, arrival: Arrival, *, failed: bool) -> None:
        self.state = self.state.end(arrival.domain_id, self._clock_s(), failed=failed)
        write_serving(self._server, self.state)
        remove_tree(self._folder.steps / arrival.domain_id)


def join_round(
    *,
    current: SystemState,
    base: SystemState,
    done: Round,
    report_rounds: int,
    admit: Callable[[ModelCard], ModelCard],
) -> Round:
    """A round that began from ``base``, as one that follows ``current``.

    Models and rejections of rounds that ended in the meantime stay. A model that another domain
    has registered meanwhile is no domain's twice: its report becomes a failure.
    """
    new_cards = [*done.state.catalogue[len(base.catalogue) :]]
    owned = current.owned.find(card.model_id for card in new_cards)
    cards, taken = [], set[str]()
    for card in new_cards:
        owner = owned.get(card.model_id, card).domain_id
        if owner == card.domain_id or card.model_id in card.parents:
            cards.append(admit(card))
        else:
            taken.add(card.model_id)
    new = [each for each in done.state.rejections if each.round_index == base.round_index]
    oldest = current.round_index - report_rounds
    left = [each for each in current.rejections if each.round_index > oldest]
    state = replace(current, rejections=()).note([*left, *new]).admit(tuple(cards))
    reports = tuple(_unless_taken(report, taken) for report in done.reports)
    return replace(done, state=state, reports=reports)


def _unless_taken(report: TrainResult | Failure, taken: set[str]) -> TrainResult | Failure:
    card = report.card if isinstance(report, TrainResult) else None
    if isinstance(report, Failure) or card is None or card.model_id not in taken:
        return report
    error = f"report of {report.domain_id}: got another domain's model, wanted its own"
    return digest_failure(report, EdgeError(error))


def _saved_failure(folder: RunFolder, arrival: Arrival, count: int) -> bool | None:
    """Whether the saved round of an arrival failed; None where none was saved."""
    for index in range(arrival.base, count):
        rows = [
            row
            for row in folder.read_round(index)
            if (row.domain_id, row.round_index) == (arrival.domain_id, arrival.base)
        ]
        if rows:
            return any(row.error for row in rows)
    return None


@dataclass(frozen=True, slots=True)
class _Ordering:
    """An ``Edge`` that tells the depot when the domain is asked to register a model."""

    edge: Edge
    order: Callable[[int | None], None]

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        training = [each for each in requests if isinstance(each, TrainRequest | GrowRequest)]
        if any(each.register for each in training):
            self.order(training[0].round_index)
        return self.edge.ask(requests)
