"""One round's ledger as the tracks of its devices, one method at a time.

Methods of a comparison stand for separate systems: none's traffic may slow another's down. So
each is simulated by itself, with the system's own messages (method "") in each.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graft.core.ledger import DEPOT, canonical_key, is_upload
from graft.core.records import LedgerEntry
from graft_simulation.clock.tracks import Compute, Step, Transfer

_JOIN, _PROFILE, _PROBE, _LEARN = range(4)
_STAGES = {"join": _JOIN, "profile": _PROFILE, "probe": _PROBE}
# Where in a stage a message stands. A device computes behind what comes down, unless it is the
# acknowledgement of what it pushed.
_COMPUTE = 2
_PLACES = {"register": 3, "acknowledge": 4}

# (stage, place in the list of steps) of what an entry was.
Spot = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceRound:
    """One device's stages under one method, and which step each ledger entry is (by its index)."""

    stages: tuple[tuple[Step, ...], ...]
    spots: Mapping[int, Spot]


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodRound:
    """One method's round: its devices, and the stages in which an answer never came."""

    devices: Mapping[str, DeviceRound]
    lossy_stages: frozenset[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeTimes:
    """Seconds that a device computes: its probe, and each training task of the round in turn."""

    probe_s: float = 0.0
    learn_s: tuple[float, ...] = ()


def method_round(
    entries: Sequence[LedgerEntry], method: str, times: Mapping[str, ComputeTimes]
) -> MethodRound:
    """What happened under one method, and what it takes of each device; the order of the entries
    does not matter."""
    mine: dict[str, list[int]] = defaultdict(list)
    for index, entry in enumerate(entries):
        if entry.method in ("", method):
            mine[entry.domain_id].append(index)
    devices, lossy = {}, set()
    for domain_id, indices in mine.items():
        placed = _placed(entries, sorted(indices, key=lambda i: canonical_key(entries[i])))
        lossy |= {stage for index, (stage, _) in placed.items() if entries[index].outcome == "lost"}
        devices[domain_id] = _device_round(entries, placed, times.get(domain_id, ComputeTimes()))
    return MethodRound(devices=devices, lossy_stages=frozenset(lossy))


def is_carried(entry: LedgerEntry) -> bool:
    """Whether anything was on its way: not what a device held, and not what never left."""
    return not entry.cached and entry.outcome not in ("lost", "refused")


def _placed(entries: Sequence[LedgerEntry], indices: Sequence[int]) -> dict[int, Spot]:
    """Stage and place in it of each entry. A domain that is asked to learn several times in a
    round (FedAvg) has as many of each message, in turn."""
    alike: dict[Spot, list[int]] = defaultdict(list)
    for index in indices:
        alike[_spot(entries[index])].append(index)
    tasks = max(1, len(alike.get((_LEARN, 0), ())))
    placed = {}
    for (stage, place), group in alike.items():
        for number, index in enumerate(group):
            later = number * tasks // len(group) if stage == _LEARN else 0
            placed[index] = (stage + later, place)
    return placed


def _spot(entry: LedgerEntry) -> Spot:
    stage = _STAGES.get(entry.phase, _LEARN)
    if entry.phase in _PLACES:
        return stage, _PLACES[entry.phase]
    if is_upload(entry):
        return stage, 5
    return stage, 1 if entry.sender == DEPOT else 0


def _device_round(
    entries: Sequence[LedgerEntry], placed: Mapping[int, Spot], times: ComputeTimes
) -> DeviceRound:
    """The steps of each stage in their order, computing among them."""
    num_stages = 1 + max((stage for stage, _ in placed.values()), default=0)
    num_stages = max(num_stages, _LEARN + len(times.learn_s), _LEARN if times.probe_s else 0)
    waiting: list[list[tuple[int, int, Step]]] = [[] for _ in range(num_stages)]
    for number, (index, (stage, place)) in enumerate(placed.items()):
        entry = entries[index]
        if is_carried(entry):
            step = Transfer(up=is_upload(entry), num_bytes=entry.wire_bytes)
            waiting[stage].append((place, number, step))
    for stage, seconds in enumerate((times.probe_s, *times.learn_s), _PROBE):
        if seconds:
            waiting[stage].append((_COMPUTE, -1, Compute(seconds=seconds)))
    numbers = list(placed)
    stages, spots = [], {}
    for stage, steps in enumerate(waiting):
        steps.sort(key=lambda step: step[:2])
        stages.append(tuple(step for _, _, step in steps))
        for position, (_, number, _) in enumerate(steps):
            if number >= 0:
                spots[numbers[number]] = (stage, position)
    return DeviceRound(stages=tuple(stages), spots=spots)
