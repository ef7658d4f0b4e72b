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
# A device's steps within a stage: from the server, from the depot, computing, push, its
# acknowledgement, response.
_FROM_SERVER, _FROM_DEPOT, _COMPUTE, _REGISTER, _ACKNOWLEDGE, _RESPONSE = range(6)
_ORDER = {"register": _REGISTER, "acknowledge": _ACKNOWLEDGE}

# (stage, order within it) of a ledger entry.
StageOrder = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceRound:
    """One device's stages under one method; ``steps``: by a ledger entry's index, the stage and
    the index in it of the entry's step."""

    stages: tuple[tuple[Step, ...], ...]
    steps: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodRound:
    """One method's round: its devices, and the stages in which a response was lost."""

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
    """The round under one method; the order of the entries does not matter."""
    mine: dict[str, list[int]] = defaultdict(list)
    for index, entry in enumerate(entries):
        if entry.method in ("", method):
            mine[entry.domain_id].append(index)
    devices, lossy = {}, set()
    for domain_id, indices in mine.items():
        order = _stage_orders(entries, sorted(indices, key=lambda i: canonical_key(entries[i])))
        lossy |= {stage for index, (stage, _) in order.items() if entries[index].outcome == "lost"}
        devices[domain_id] = _device_round(entries, order, times.get(domain_id, ComputeTimes()))
    return MethodRound(devices=devices, lossy_stages=frozenset(lossy))


def _stage_orders(entries: Sequence[LedgerEntry], indices: Sequence[int]) -> dict[int, StageOrder]:
    """Of each entry. A domain that trains several times in a round (FedAvg) has as many of each
    message, in turn."""
    alike: dict[StageOrder, list[int]] = defaultdict(list)
    for index in indices:
        alike[_stage_order(entries[index])].append(index)
    tasks = max(1, len(alike.get((_LEARN, _FROM_SERVER), ())))
    return {
        index: (stage + (number * tasks // len(group) if stage == _LEARN else 0), order)
        for (stage, order), group in alike.items()
        for number, index in enumerate(group)
    }


def _stage_order(entry: LedgerEntry) -> StageOrder:
    if is_upload(entry):
        first = _RESPONSE
    else:
        first = _FROM_DEPOT if entry.sender == DEPOT else _FROM_SERVER
    return _STAGES.get(entry.phase, _LEARN), _ORDER.get(entry.phase, first)


def _device_round(
    entries: Sequence[LedgerEntry], orders: Mapping[int, StageOrder], times: ComputeTimes
) -> DeviceRound:
    """The steps of each stage in their order, computing among them."""
    num_stages = 1 + max((stage for stage, _ in orders.values()), default=0)
    num_stages = max(num_stages, _LEARN + len(times.learn_s), _LEARN if times.probe_s else 0)
    # (order, a number that keeps equal orders in sequence, entry's index, step)
    unsorted: list[list[tuple[int, int, int | None, Step]]] = [[] for _ in range(num_stages)]
    for number, (index, (stage, order)) in enumerate(orders.items()):
        entry = entries[index]
        if not entry.cached and entry.outcome not in ("lost", "refused"):  # it travelled
            step = Transfer(up=is_upload(entry), num_bytes=entry.wire_bytes)
            unsorted[stage].append((order, number, index, step))
    for stage, seconds in enumerate((times.probe_s, *times.learn_s), _PROBE):
        if seconds:
            unsorted[stage].append((_COMPUTE, -1, None, Compute(seconds=seconds)))
    stages = [sorted(steps, key=lambda step: step[:2]) for steps in unsorted]
    return DeviceRound(
        stages=tuple(tuple(step for *_, step in steps) for steps in stages),
        steps={
            index: (stage, position)
            for stage, steps in enumerate(stages)
            for position, (_, _, index, _) in enumerate(steps)
            if index is not None
        },
    )
