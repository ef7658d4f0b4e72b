"""When a domain's device is there: on and off intervals, seeded."""

from bisect import bisect_right
from math import inf

import numpy as np

from graft.core.config import NetworkConfig
from graft.core.seeding import stream


class Availability:
    """On and off intervals in turn, exponentially long, from the start of a round.

    Whether it begins on is drawn by the long-run share of time that it is on.
    """

    def __init__(self, generator: np.random.Generator, mean_on_s: float, mean_off_s: float) -> None:
        self._generator = generator
        self._means_s = (mean_on_s, mean_off_s)
        begins_on = generator.random() < mean_on_s / (mean_on_s + mean_off_s)
        # Even places switch on: a device that begins on was switched on before 0.
        self._switches_s = [-inf if begins_on else float(generator.exponential(mean_off_s))]

    def next_on_s(self, now_s: float) -> float:
        """``now_s`` where the device is on, else when it comes back."""
        place = self._place(now_s)
        return now_s if place % 2 == 0 else self._switches_s[place + 1]

    def off_s(self, now_s: float) -> float:
        """When a device that is on at ``now_s`` next goes off."""
        return self._switches_s[self._place(now_s) + 1]

    def _place(self, now_s: float) -> int:
        """The last switch up to ``now_s``, -1 where there is none; the one behind it is known."""
        while self._switches_s[-1] <= now_s:
            mean_s = self._means_s[(len(self._switches_s) - 1) % 2]
            begun_s = max(0.0, self._switches_s[-1])
            self._switches_s.append(begun_s + float(self._generator.exponential(mean_s)))
        return bisect_right(self._switches_s, now_s) - 1


def domain_availability(
    domain_id: str, round_index: int, seed: int, network: NetworkConfig
) -> Availability | None:
    """The intervals of one domain in one round; None where devices are always there."""
    if not network.mean_off_s:
        return None
    generator = stream("availability", seed, domain_id, round_index)
    return Availability(generator, network.mean_on_s, network.mean_off_s)
