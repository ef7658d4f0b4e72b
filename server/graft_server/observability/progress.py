"""How far a run is: a record, and a file of it for other processes."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from graft.core.files import replace_file

_WRITE_EVERY_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedDomain:
    """A domain that is being served by itself: its phase, and since when, in epoch seconds."""

    domain: str
    phase: str
    began_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundProgress:
    """``done`` of the ``wanted`` responses of a round's phase, and its payload bytes so far.

    ``serving`` are the domains that are served as they come, each in a phase of its own.
    """

    round_index: int
    phase: str
    done: int
    wanted: int
    payload_bytes: int
    serving: tuple[ServedDomain, ...] = ()


class ProgressFile:
    """Keeps {round, phase, done, wanted, payload_bytes, serving, time} in a file, ``time`` in epoch
    seconds.

    It is written a few times a second at most, but always for the first and the last response of
    a phase.
    """

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock_s = clock_s
        self._phase: tuple[object, ...] = ()
        self._written_s = 0.0

    def __call__(self, now: RoundProgress) -> None:
        now_s, phase = self._clock_s(), (now.round_index, now.phase, now.serving)
        is_same = self._phase == phase and now.done < now.wanted
        if is_same and 0 <= now_s - self._written_s < _WRITE_EVERY_S:
            return
        self._phase, self._written_s = phase, now_s
        facts = {
            "round": now.round_index,
            "phase": now.phase,
            "done": now.done,
            "wanted": now.wanted,
            "time": now_s,
            "payload_bytes": now.payload_bytes,
            "serving": [asdict(each) for each in now.serving],
        }
        replace_file(self._path, json.dumps(facts).encode(), durable=False)
