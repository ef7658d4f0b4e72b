"""The simulated clock's core: devices that transfer and compute, in stages, beside one server.

A discrete-event simulation (SimPy). A stage is over when every device has ended it and the
server has given up those that are lost; then the next begins. No clock of the host is read.
"""

from bisect import bisect_right
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import simpy

from graft.core.config import NetworkConfig
from graft.core.seeding import stream
from graft.devices import LinkClass
from graft_simulation.clock.shared_link import SharedPipe

_Events = Generator[simpy.Event, object, None]


class Availability:
    """On and off intervals in turn, exponentially long, from the start of a round.

    Whether it begins on is drawn by the long-run share of time that it is on.
    """

    def __init__(self, generator: np.random.Generator, mean_on_s: float, mean_off_s: float) -> None:
        self._generator = generator
        self._means_s = (mean_on_s, mean_off_s)
        begins_on = generator.random() < mean_on_s / (mean_on_s + mean_off_s)
        # Even indices switch on: a device that begins on was switched on before 0.
        self._switches_s = [-inf if begins_on else float(generator.exponential(mean_off_s))]

    def next_on_s(self, now_s: float) -> float:
        """``now_s`` where the device is on, else when it comes back."""
        last = self._last_switch(now_s)
        return now_s if last % 2 == 0 else self._switches_s[last + 1]

    def off_s(self, now_s: float) -> float:
        """When a device that is on at ``now_s`` next goes off."""
        return self._switches_s[self._last_switch(now_s) + 1]

    def _last_switch(self, now_s: float) -> int:
        """Index of the last switch up to ``now_s``, -1 before the first; the next one is drawn."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """A message of ``num_bytes`` on the wire, up from the device or down to it."""

    up: bool
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """Computing that takes the device ``seconds`` while it is there."""

    seconds: float


Step = Transfer | Compute


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Track:
    """One device's stages of steps, one after another; ``availability`` None: always there."""

    device_id: str
    link: LinkClass
    stages: Sequence[Sequence[Step]]
    availability: Availability | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """The server's connection; ``waits_s``: by stage, its wait after the last response."""

    up_bits_per_s: float
    down_bits_per_s: float
    waits_s: Mapping[int, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """Simulated seconds: ``durations_s`` of each device's steps by stage, waiting included;
    ``finish_s`` of its last step; ``stage_ends_s`` when the server went on."""

    durations_s: Mapping[str, tuple[tuple[float, ...], ...]]
    finish_s: Mapping[str, float]
    stage_ends_s: tuple[float, ...]

    @property
    def makespan_s(self) -> float:
        """When the last stage was over."""
        return self.stage_ends_s[-1] if self.stage_ends_s else 0.0


def run_tracks(tracks: Iterable[Track], server: Server) -> Timeline:
    """Simulate all devices from 0; the order of the tracks does not matter."""
    ordered = sorted(tracks, key=lambda track: track.device_id)
    env = simpy.Environment()
    simulated = _Round(env, ordered, server)
    for track in ordered:
        env.process(simulated.follow(track))
    env.run()
    return Timeline(
        durations_s={
            name: tuple(map(tuple, stages)) for name, stages in simulated.durations.items()
        },
        finish_s=simulated.finish_s,
        stage_ends_s=tuple(simulated.ends_s),
    )


class _Round:
    """What the devices share: the server's two pipes, and a gate behind every stage."""

    def __init__(self, env: simpy.Environment, tracks: Sequence[Track], server: Server) -> None:
        num_stages = max((len(track.stages) for track in tracks), default=0)
        self._env = env
        self._waits_s = server.waits_s
        # What goes up from a device comes down the server's connection, and the other way round.
        self._pipes = {
            True: SharedPipe(env, server.down_bits_per_s),
            False: SharedPipe(env, server.up_bits_per_s),
        }
        self._gates = [env.event() for _ in range(num_stages)]
        self._missing = [len(tracks)] * num_stages
        self.durations: dict[str, list[list[float]]] = {t.device_id: [] for t in tracks}
        self.finish_s = dict.fromkeys(self.durations, 0.0)
        self.ends_s: list[float] = []

    def follow(self, track: Track) -> _Events:
        """Run one device through all stages."""
        env, name = self._env, track.device_id
        for number in range(len(self._gates)):
            steps = track.stages[number] if number < len(track.stages) else ()
            durations: list[float] = []
            for step in steps:
                started_s = env.now
                if isinstance(step, Compute):
                    yield from self._work(track, step.seconds)
                else:
                    yield from self._transfer(track, step)
                durations.append(env.now - started_s)
                self.finish_s[name] = env.now
            self.durations[name].append(durations)
            self._missing[number] -= 1
            if not self._missing[number]:
                env.process(self._open(number))
            yield self._gates[number]

    def _open(self, number: int) -> _Events:
        yield self._env.timeout(self._waits_s.get(number, 0.0))
        self.ends_s.append(self._env.now)
        self._gates[number].succeed()

    def _work(self, track: Track, seconds: float) -> _Events:
        """Compute while the device is there, and pause while it is not."""
        off_s = 0.0
        while seconds > 0:
            off_s = yield from self._there_until(track, off_s)
            worked_s = min(seconds, off_s - self._env.now)
            yield self._env.timeout(worked_s)
            seconds -= worked_s

    def _transfer(self, track: Track, step: Transfer) -> _Events:
        """Latency once, then the bits; a broken transfer goes on where it stopped."""
        env, link, pipe = self._env, track.link, self._pipes[step.up]
        off_s = yield from self._there_until(track, 0.0)
        yield env.timeout(link.latency_s)
        own_bits_per_s = link.up_bits_per_s if step.up else link.down_bits_per_s
        # What is lost is sent again, over both links.
        bits = 8 * step.num_bytes / (1 - link.loss)
        while bits > 0:
            off_s = yield from self._there_until(track, 0.0 if off_s > env.now else off_s)
            flow = pipe.start(bits, own_bits_per_s)
            if off_s == inf:
                yield flow.done
                return
            yield flow.done | env.timeout(off_s - env.now)
            if flow.done.triggered:
                return
            bits = pipe.stop(flow)

    def _there_until(self, track: Track, since_s: float) -> Generator[simpy.Event, object, float]:
        """Wait until the device is on; returns when it goes off. ``since_s``: when it last went
        off, which a rounded clock may not have reached."""
        if track.availability is None:
            return inf
        now_s = max(self._env.now, since_s)
        on_s = track.availability.next_on_s(now_s)
        if on_s > self._env.now:
            yield self._env.timeout(on_s - self._env.now)
        return track.availability.off_s(on_s)
