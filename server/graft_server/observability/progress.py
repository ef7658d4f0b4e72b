"""Where a run is, for those who look from outside: one small file, written anew as it goes on."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from graft.core.files import replace_file

_WRITE_EVERY_S = 0.2


class ProgressFile:
    """Keeps {round, phase, done, wanted, payload_bytes, time} in a file, ``time`` in epoch seconds.

    A call has the arguments of ``graft_server.round_loop.Progress``. What changes faster than a
    few times a second is written when it is next told; the first and last answer of a phase
    always are.
    """

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock_s = clock_s
        self._phase = (-1, "")
        self._written_s = 0.0

    def __call__(self, index: int, phase: str, done: int, wanted: int, num_bytes: int) -> None:
        now_s = self._clock_s()
        is_same = self._phase == (index, phase) and done < wanted
        if is_same and 0 <= now_s - self._written_s < _WRITE_EVERY_S:
            return
        self._phase, self._written_s = (index, phase), now_s
        facts = {
            "round": index,
            "phase": phase,
            "done": done,
            "wanted": wanted,
            "time": now_s,
            "payload_bytes": num_bytes,
        }
        replace_file(self._path, json.dumps(facts).encode(), durable=False)
