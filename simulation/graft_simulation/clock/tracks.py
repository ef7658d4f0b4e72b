"""The simulated clock's core: devices that transfer and compute, in stages, beside one server.

A discrete-event simulation (SimPy). A stage is over when every device has ended it and the
server has given up those that are lost; then the next begins. No clock of the host is read.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import simpy

from graft.devices import LinkClass
from graft_simulation.clock.availability import Availability
from graft_simulation.clock.shared_link import SharedPipe

_Events = Generator[simpy.Event, object, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """A message of ``num_bytes`` on the wire, up from the device or down to it."""

    up: bool
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """ComputeCost that takes the device ``seconds`` while it is there."""

    seconds: float


Step = Transfer | Compute


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Track:
    """What one device does: stages of steps, one after another. No stage waits for an empty one.

    ``availability`` None: always there.
    """

    device_id: str
    link: LinkClass
    stages: Sequence[Sequence[Step]]
    availability: Availability | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """The server's connection, and how long beyond a stage's last answer it waits.

    ``waits_s``: by stage; what is not there waits for nobody.
    """

    up_bits_per_s: float
    down_bits_per_s: float
    waits_s: Mapping[int, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """Simulated seconds. ``durations_s`` are each device's steps by stage, waiting included;
    ``finish_s`` is the end of its last step; ``stage_ends_s`` when the server went on."""

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
    floor = _Floor(env, ordered, server)
    for track in ordered:
        env.process(floor.follow(track))
    env.run()
    return Timeline(
        durations_s={name: tuple(map(tuple, stages)) for name, stages in floor.durations.items()},
        finish_s=floor.finish_s,
        stage_ends_s=tuple(floor.ends_s),
    )


class _Floor:
    """Where the devices meet: the server's two pipes, and a gate behind every stage."""

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
        """One device's way through all stages."""
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
        """ComputeCost while the device is there, and rest while it is not."""
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
        """Wait until the device is there, and say when it goes. ``since_s``: when it last went;
        the clock may stand a rounding before that."""
        if track.availability is None:
            return inf
        now_s = max(self._env.now, since_s)
        on_s = track.availability.next_on_s(now_s)
        if on_s > self._env.now:
            yield self._env.timeout(on_s - self._env.now)
        return track.availability.off_s(on_s)
