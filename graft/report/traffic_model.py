"""Modelled wire bytes by stage: a simulated ledger as a count on the link would show it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from graft.core.ledger import DEPOT, is_upload
from graft.core.records import LedgerEntry, Phase
from graft.wire.overhead import (
    CONNECTION_DOWN_BYTES,
    CONNECTION_UP_BYTES,
    EXCHANGE_S,
    FETCH_UP_BYTES,
    SPARED_DOWN_BYTES,
    SPARED_UP_BYTES,
    WAIT_DOWN_BYTES_PER_S,
    WAIT_UP_BYTES_PER_S,
    WORK_DOWN_BYTES_PER_S,
    WORK_UP_BYTES_PER_S,
    returned_bytes,
    spared_share,
)

Stage = Literal["join", "profile", "probe", "learn"]
_STAGE_OF: Final[dict[Phase, Stage]] = {
    "join": "join", "profile": "profile", "probe": "probe", "ship": "learn",
    "report": "learn", "register": "learn", "acknowledge": "learn",
}  # fmt: skip

Key = tuple[str, bool]  # stage, whether up


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTime:
    """When a stage of a round began and ended, in Unix time."""

    round_index: int
    stage: Stage
    began_s: float
    ended_s: float


def stage_of(entry: LedgerEntry) -> Stage:
    """The stage of a round in which a message travels."""
    return _STAGE_OF[entry.phase]


def modelled_bytes(entries: Iterable[LedgerEntry]) -> dict[Key, float]:
    """The ledger's modelled wire bytes, with the traffic against the messages' direction."""
    modelled: dict[Key, float] = defaultdict(float)
    fetches: dict[tuple[int, str, str, str], bool] = defaultdict(bool)
    for entry in entries:
        stage, up = stage_of(entry), is_upload(entry)
        modelled[stage, up] += entry.wire_bytes
        if entry.cached or not entry.wire_bytes:
            continue
        modelled[stage, not up] += returned_bytes(entry.wire_bytes)
        if DEPOT in (entry.sender, entry.receiver):
            fetch = not up and entry.phase != "acknowledge"
            modelled[stage, True] += FETCH_UP_BYTES if fetch else 0
            fetches[entry.round_index, entry.domain_id, entry.method, stage] |= fetch
    for (_, _, _, name), fetched in fetches.items():
        # The first call's own row has the connection's bytes of that call's direction.
        modelled[name, fetched] += CONNECTION_UP_BYTES if fetched else CONNECTION_DOWN_BYTES
    return modelled


def first_exchanges(entries: Iterable[LedgerEntry]) -> dict[Stage, int]:
    """How many exchanges were a node's first of a Flower run, by stage."""
    stages = [stage_of(entry) for entry in entries if is_upload(entry)]
    first: Stage = "join" if "join" in stages else "profile"
    return {first: stages.count(first)}


def timed_bytes(
    stages: Sequence[StageTime], entries: Iterable[LedgerEntry], nodes: int
) -> dict[Key, float]:
    """Bytes that depend on a deployment's times.

    Nodes that wait for a request poll; those that work longer than an exchange's usual time send
    keep-alives; those that answer quickly spare a connection.
    """
    exchanges: dict[tuple[int, Stage], list[float | None]] = defaultdict(list)
    for entry in entries:
        if is_upload(entry) and entry.receiver != DEPOT:
            exchanges[entry.round_index, stage_of(entry)].append(entry.measured_s)
    timed: dict[Key, float] = defaultdict(float)
    for time in stages:
        whole_s = time.ended_s - time.began_s
        known_s = exchanges[time.round_index, time.stage]
        took_s = [min(whole_s, EXCHANGE_S if one_s is None else one_s) for one_s in known_s]
        idle_s = max(0.0, nodes * whole_s - sum(took_s))
        work_s = sum(max(0.0, one_s - EXCHANGE_S) for one_s in took_s)
        spared = sum(spared_share(one_s) for one_s in took_s)
        timed[time.stage, True] += (
            WAIT_UP_BYTES_PER_S * idle_s + WORK_UP_BYTES_PER_S * work_s - SPARED_UP_BYTES * spared
        )
        timed[time.stage, False] += (
            WAIT_DOWN_BYTES_PER_S * idle_s
            + WORK_DOWN_BYTES_PER_S * work_s
            - SPARED_DOWN_BYTES * spared
        )
    return timed
