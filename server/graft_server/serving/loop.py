"""Serving as they come: the ServerApp's loop, which begins with a domain when its device shows up.

Rounds that ``graft deploy expand`` plans are run by the same loop, while nothing else is served.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from graft.errors import ConfigError, GraftError
from graft_server.deployment.enrolment import enrolled
from graft_server.deployment.forgetting import complete_forgetting, enrolments
from graft_server.forgetting import read_forgotten
from graft_server.model_store import DirectoryStore
from graft_server.observability.progress import ProgressFile, RoundProgress, ServedDomain
from graft_server.round_loop import RunSettings, keep_backbones
from graft_server.round_schedule import plan_round, read_rounds
from graft_server.run_folder import RunFolder
from graft_server.serving.arrivals import Arrivals, ConnectDomain
from graft_server.serving.hold import is_held
from graft_server.serving.planner import due_domains, read_serving
from graft_server.serving.policy import ServingPolicy, read_policy

log = logging.getLogger("graft")
_LOOK_S: Final = 1.0
_AGAIN_S: Final = 60.0  # after a planned round that did not come to its end
_TABLES_S: Final = 60.0  # how often a busy server writes the run's whole tables


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the loop works with.

    ``online`` gives the domains whose devices Flower hears from, and raises where the SuperLink is
    gone. ``connect`` opens the way to one domain, ``run_planned`` runs the rounds that are planned,
    ``lock`` is held while any round runs, and ``settings`` are those of the deployment's run.
    """

    server: Path
    folder: RunFolder
    settings: RunSettings
    online: Callable[[], Sequence[str]]
    connect: ConnectDomain
    run_planned: Callable[[], object]
    lock: Callable[[], AbstractContextManager[None]]
    clock_s: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


class ServingLoop:
    """Looks who is there and serves whom the policy allows; ``run`` does it for ever."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._server, self._folder = around.server, around.folder
        self._seen: dict[str, None] = {}  # domains in the order in which they came online
        self._policy = ServingPolicy()
        self._progress = ProgressFile(self._server / "state" / "progress.json", around.clock_s)
        self._again_s = 0.0
        self._had_models: tuple[object, tuple[set[str], set[str]]] | None = None

    def run(self) -> NoReturn:
        """Serve until the way to the devices breaks, which raises."""
        while True:
            self.look()
            self._around.sleep(_LOOK_S)

    def look(self) -> None:
        """Do what is due now; returns when nothing is being served."""
        online = self._online()
        self._read_policy()
        if read_serving(self._server).open:
            self._serve(online)
        elif self._is_planned():
            self._run_planned()
        elif self._plan_initial(online) or not self._due(online):
            return
        else:
            self._serve(online)

    def _online(self) -> tuple[str, ...]:
        online = tuple(self._around.online())
        self._seen |= dict.fromkeys(online)
        return online

    def _read_policy(self) -> None:
        try:
            self._policy = read_policy(self._server)
        except ConfigError as error:
            log.error("%s; the policy of before stays", error)

    def _is_planned(self) -> bool:
        return self._folder.count_rounds() < len(read_rounds(self._server))

    def _plan_initial(self, online: Sequence[str]) -> bool:
        """Before round 0 nothing can be served; plan it where the policy names its domains."""
        if self._folder.count_rounds():
            return False
        initial = self._policy.initial
        ready = initial and set(initial) <= set(online)
        quiet = self._policy.is_quiet(self._around.clock_s())
        if ready and not quiet and not is_held(self._server):
            plan_round(self._server, initial, self._folder.read_state())
        return True

    def _due(self, online: Sequence[str]) -> tuple[str, ...]:
        """The domains to begin with now."""
        if self._is_planned() or is_held(self._server):
            return ()
        owners, pending = self._models()
        refused = read_forgotten(self._folder.path).refused(enrolments(self._server))
        admitted = set(enrolled(self._server)) - (owners - pending) - refused
        waiting = [domain_id for domain_id in self._seen if domain_id in admitted]
        state, now_s = read_serving(self._server), self._around.clock_s()
        return due_domains(waiting, state, self._policy, now_s, online)

    def _models(self) -> tuple[set[str], set[str]]:
        """The domains that have a model, and those of them whose model is to be trained again."""
        forgotten = read_forgotten(self._folder.path)
        version = (self._folder.count_rounds(), len(forgotten.records))
        if self._had_models is None or self._had_models[0] != version:
            state = self._folder.read_state()
            owners = {name.decode() for name in state.catalogue.domain_ids.tolist()}
            pending = {card.domain_id for card in forgotten.pending(state)}
            self._had_models = version, (owners, pending)
        return self._had_models[1]

    def _run_planned(self) -> None:
        """Run the rounds that a command planned."""
        now_s = self._around.clock_s()
        if 0 <= self._again_s - now_s <= _AGAIN_S:
            return
        try:
            with self._around.lock():
                self._around.run_planned()
        except GraftError as error:  # a domain that failed is in the results as well
            if self._is_planned():
                self._folder.fail(f"{type(error).__name__}: {error}")
                self._again_s = now_s + _AGAIN_S
            log.error("expansion: %s", error)

    def _serve(self, online: Sequence[str]) -> None:
        """Serve until nobody is being served: whom an earlier process began with, whom is due."""
        around = self._around
        with around.lock(), self._folder.locked():
            self._folder.resume(durable_steps=True)
            complete_forgetting(self._server, self._folder)
            self._folder.load_state()
            state = read_serving(self._server)
            arrivals = Arrivals(
                self._server, around.settings, around.connect, state, around.clock_s
            )
            try:
                self._serve_all(arrivals, online)
            finally:
                arrivals.close()
            self._folder.finish(self._folder.count_rounds())

    def _serve_all(self, arrivals: Arrivals, online: Sequence[str]) -> None:
        store = arrivals.store
        before = store.model_ids() if isinstance(store, DirectoryStore) else set()
        arrivals.resume(enrolled(self._server))
        tables_s = self._around.clock_s()
        while True:
            for domain_id in self._due(online):
                arrivals.begin(domain_id)
            self._show(arrivals)
            if not arrivals.state.open:
                break
            for domain_id in arrivals.save_finished():
                log.info("domain %s: served", domain_id)
            if not 0 <= self._around.clock_s() - tables_s < _TABLES_S:
                self._folder.finish(self._folder.count_rounds())
                tables_s = self._around.clock_s()
            self._read_policy()
            online = self._online()
        state = self._folder.read_state()
        if isinstance(store, DirectoryStore):
            # What these rounds pushed stays for now: with damaged tables they would run again.
            named = {name.decode() for name in state.catalogue.model_ids.tolist()}
            named |= {card.model_id for card in state.architecture_averages}
            store.remove(before - named - keep_backbones(store, self._around.settings))

    def _show(self, arrivals: Arrivals) -> None:
        """Write who is being served, and how far each is."""
        since = {each.domain_id: each.began_s for each in arrivals.state.open}
        served = tuple(
            ServedDomain(domain=domain_id, phase=phase, began_s=since.get(domain_id, 0.0))
            for domain_id, phase in sorted(arrivals.phases.items())
        )
        now = RoundProgress(
            round_index=self._folder.count_rounds(),
            phase="serve",
            done=0,
            wanted=len(served),
            payload_bytes=arrivals.payload_bytes(),
            serving=served,
        )
        self._progress(now)
