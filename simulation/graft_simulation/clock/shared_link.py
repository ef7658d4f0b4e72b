"""A connection that many transfers share fairly: exact, from event to event, without time steps.

Max-min fairness over one shared pipe and each transfer's own link: a transfer runs at its link's
rate or at the pipe's fair level, whichever is lower. Transfers whose links have one rate run at
one pace at any moment, so each such lane needs a single count of bits since it opened, and a
transfer ends when its lane's count reaches what it was at the start plus its own bits. An event
costs the number of lanes (link classes) and the logarithm of the transfers, not their number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf

import simpy

# Ends of transfers this close in bits are one end: rounding must not leave a crumb that waits.
_SAME = 1e-9


@dataclass(slots=True, eq=False)
class Flow:
    """One transfer on its way; ``done`` is triggered when its last bit has left the pipe."""

    own_bits_per_s: float
    ends_at_bits: float
    done: simpy.Event
    running: bool = True


@dataclass(slots=True)
class _Lane:
    """All transfers whose own links have one rate."""

    passed_bits: float = 0.0
    pace_bits_per_s: float = 0.0
    running: int = 0
    ends: list[tuple[float, int, Flow]] = field(default_factory=list)


class SharedPipe:
    """One direction of the server's connection, ``bits_per_s`` wide.

    ``carried_bits`` is all that has passed.
    """

    def __init__(self, env: simpy.Environment, bits_per_s: float) -> None:
        self._env = env
        self._bits_per_s = bits_per_s
        self._lanes: dict[float, _Lane] = {}
        self._numbers = count()
        self._settled_s = env.now
        self._looks = 0
        self.carried_bits = 0.0

    def start(self, bits: float, own_bits_per_s: float) -> Flow:
        """Begin a transfer of ``bits`` over a link of its own rate."""
        self._settle()
        lane = self._lanes.setdefault(own_bits_per_s, _Lane())
        flow = Flow(own_bits_per_s, lane.passed_bits + bits, self._env.event())
        heappush(lane.ends, (flow.ends_at_bits, next(self._numbers), flow))
        lane.running += 1
        self._share()
        return flow

    def stop(self, flow: Flow) -> float:
        """Break a transfer off; returns the bits that are left of it."""
        self._settle()
        lane = self._lanes[flow.own_bits_per_s]
        flow.running = False
        lane.running -= 1
        self._share()
        return max(0.0, flow.ends_at_bits - lane.passed_bits)

    def _settle(self) -> None:
        """Count what has passed since the last event."""
        elapsed_s = self._env.now - self._settled_s
        self._settled_s = self._env.now
        for lane in self._lanes.values():
            if lane.running:
                lane.passed_bits += lane.pace_bits_per_s * elapsed_s
                self.carried_bits += lane.pace_bits_per_s * elapsed_s * lane.running

    def _share(self) -> None:
        """Set every lane's pace, and look again when the first transfer ends."""
        for rate in [rate for rate, lane in self._lanes.items() if not lane.running]:
            del self._lanes[rate]
        paces = fair_paces(
            self._bits_per_s, {rate: lane.running for rate, lane in self._lanes.items()}
        )
        soonest_s = inf
        for rate, lane in self._lanes.items():
            lane.pace_bits_per_s = paces[rate]
            while not lane.ends[0][2].running:
                heappop(lane.ends)
            left_bits = max(0.0, lane.ends[0][0] - lane.passed_bits)
            soonest_s = min(soonest_s, left_bits / lane.pace_bits_per_s)
        self._looks += 1
        if soonest_s < inf:
            look = self._env.timeout(soonest_s, self._looks)
            assert look.callbacks is not None
            look.callbacks.append(self._finish)

    def _finish(self, look: simpy.Event) -> None:
        """End every transfer whose last bit has passed; a look that came to be late is none."""
        if look.value != self._looks:
            return
        self._settle()
        for lane in self._lanes.values():
            while lane.ends and _has_ended(lane, self._env.now):
                _, _, flow = heappop(lane.ends)
                if flow.running:
                    flow.running = False
                    lane.running -= 1
                    flow.done.succeed()
        self._share()


def _has_ended(lane: _Lane, now_s: float) -> bool:
    """Whether the lane's next end is reached, or nearer than the clock can tell apart."""
    left_bits = lane.ends[0][0] - lane.passed_bits
    return (
        left_bits <= _SAME * max(1.0, lane.ends[0][0])
        or now_s + left_bits / lane.pace_bits_per_s == now_s
    )


def fair_paces(bits_per_s: float, transfers: Mapping[float, int]) -> dict[float, float]:
    """The pace of each lane, bits a second, where ``transfers`` counts them by own rate.

    Narrow links first: what they leave is shared by the wider ones.
    """
    left, waiting = bits_per_s, sum(transfers.values())
    paces: dict[float, float] = {}
    for own in sorted(transfers):
        paces[own] = min(own, left / waiting)
        left -= paces[own] * transfers[own]
        waiting -= transfers[own]
    return paces
