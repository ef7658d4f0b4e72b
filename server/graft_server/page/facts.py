"""What the operator's page shows, read from the server's folder."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from graft.core.deployment import read_server
from graft.core.results import ResultRow
from graft.errors import ConfigError
from graft.report.formatting import PHASES, percent_text
from graft_server.observability.finished_rounds import Bytes, FinishedRound, FinishedRounds
from graft_server.observability.overview import (
    DeviceState,
    Overview,
    read_overview,
    superlink_answers,
)
from graft_server.page.remedies import remedy
from graft_server.serving.hold import is_serving
from graft_server.serving.policy import read_policy

MOST_ROUNDS: Final = 50
_ASK_EVERY_S: Final = 10.0  # whether the SuperLink and the depot answer, which is a call each


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """A domain whose latest result is a failure."""

    domain: str
    error: str
    message: str
    remedy: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceLine:
    """A device, its last word, and what it is doing now."""

    state: DeviceState
    heard: str
    word: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundLine:
    """A finished round."""

    index: int
    ended: str
    domains: tuple[str, ...]
    accuracy: float | None
    failed: int
    down: int
    up: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFacts:
    """One look at a deployment; ``now`` has a line for each domain or phase that is under way."""

    overview: Overview
    serving: str
    online: int
    now: tuple[str, ...]
    troubles: tuple[Trouble, ...]
    devices: tuple[DeviceLine, ...]
    rounds: tuple[RoundLine, ...]
    bytes_by_phase: Bytes
    down: int
    up: int
    runs: tuple[str, ...]


class FactsReader:
    """Reads the facts of a server's folder; ``runs`` are folders that hold run folders, and
    ``depot`` asks the depot whether it serves."""

    def __init__(
        self,
        server: Path,
        runs: tuple[Path, ...],
        depot: Callable[[], bool],
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._depot = depot
        self._runs = (server / "runs", *runs)
        self._clock_s = clock_s
        self._rounds = FinishedRounds(server / "runs" / read_server(server).run)
        self._asked_s = -math.inf
        self._answers = False, False

    def read(self) -> PageFacts:
        """The deployment now."""
        now_s, rounds = self._clock_s(), self._rounds.look()
        if not 0 <= now_s - self._asked_s < _ASK_EVERY_S:
            self._answers, self._asked_s = (superlink_answers(self._server), self._depot()), now_s
        superlink, depot = self._answers
        overview = read_overview(
            self._server, superlink=superlink, depot=depot, rounds=self._rounds
        )
        latest, progress = self._rounds.latest(), self._progress()
        phases = {str(each["domain"]): str(each["phase"]) for each in progress.get("serving") or ()}
        found = self._rounds.bytes_by_phase()
        sums = {phase: found[phase] for phase in PHASES if phase in found}
        return PageFacts(
            overview=overview,
            serving=self._serving(now_s),
            online=sum(each.node == "online" for each in overview.devices),
            now=tuple(_now(progress, overview, now_s)),
            troubles=tuple(
                Trouble(
                    domain=row.domain_id,
                    error=row.error,
                    message=row.error_message or "",
                    remedy=remedy(row.error),
                )
                for row in latest.values()
                if row.error
            ),
            devices=tuple(
                DeviceLine(
                    state=each,
                    heard=_ago(each.heard_s, now_s),
                    word=_word(each, latest.get(each.domain), phases.get(each.domain)),
                )
                for each in overview.devices
            ),
            rounds=tuple(_line(each) for each in rounds[::-1][:MOST_ROUNDS]),
            bytes_by_phase=sums,
            down=sum(down for down, _ in sums.values()),
            up=sum(up for _, up in sums.values()),
            runs=tuple(self.run_folders()),
        )

    def run_folders(self) -> dict[str, Path]:
        """The run folders with finished tables, by a name for each; the first of a name counts."""
        found: dict[str, Path] = {}
        for folder in self._runs:
            for path in sorted(folder.glob("*/results.parquet")):
                if (path.parent / "ledger.parquet").exists():
                    found.setdefault(path.parent.name, path.parent)
        return found

    def _serving(self, now_s: float) -> str:
        if not is_serving(self._server):
            return "rounds by graft deploy expand"
        try:
            quiet = read_policy(self._server).is_quiet(now_s)
        except ConfigError as error:
            return f"as they come; {error}"
        return "as they come; quiet hours now" if quiet else "as they come"

    def _progress(self) -> Mapping[str, Any]:
        try:
            found: dict[str, Any] = json.loads(
                (self._server / "state" / "progress.json").read_text("utf-8")
            )
            return found
        except (OSError, ValueError):
            return {}


def _now(progress: Mapping[str, Any], overview: Overview, now_s: float) -> list[str]:
    """What is under way: domains that are served by themselves, or the phase of a round."""
    if progress.get("serving"):
        return [
            f"{each['domain']}: {each['phase']}, for {_seconds(now_s - each['began_s'])}"
            for each in progress["serving"]
        ]
    if overview.finished < overview.rounds and progress.get("round") == overview.finished:
        done, wanted = progress["done"], progress["wanted"]
        return [f"round {progress['round']}: {progress['phase']}, {done} of {wanted}"]
    if overview.finished < overview.rounds:
        return [f"round {overview.finished}: waits for its ServerApp"]
    return []


def _word(state: DeviceState, row: ResultRow | None, phase: str | None) -> str:
    """A device's last word."""
    if phase is not None:
        return f"is being served: {phase}"
    if row is None:
        return "no result yet"
    if row.error:
        return f"failed: {row.error}"
    accuracy = "" if row.accuracy is None else f", accuracy {percent_text(row.accuracy)} (reported)"
    return f"served in round {state.round}{accuracy}"


def _line(each: FinishedRound) -> RoundLine:
    scores = [row.accuracy for row in each.rows if row.accuracy is not None]
    return RoundLine(
        index=each.index,
        ended=datetime.fromtimestamp(each.ended_s).astimezone().strftime("%Y-%m-%d %H:%M"),
        domains=tuple(dict.fromkeys(row.domain_id for row in each.rows)),
        accuracy=sum(scores) / len(scores) if scores else None,
        failed=len({row.domain_id for row in each.rows if row.error}),
        down=sum(down for down, _ in each.bytes_by_phase.values()),
        up=sum(up for _, up in each.bytes_by_phase.values()),
    )


def _ago(at_s: float | None, now_s: float) -> str:
    if at_s is None:
        return "never"
    return "just now" if now_s - at_s < 60 else f"{_seconds(now_s - at_s)} ago"


def _seconds(seconds: float) -> str:
    """A coarse time, so that the page changes only when something does."""
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "under a minute"
