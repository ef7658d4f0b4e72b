"""Traffic of a deployment by stage and direction: measured, counted, modelled, and the payload.

Measured by the TCP proxy before the server, counted independently on the link, modelled by a
simulation of the same run.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from rich.table import Table

from graft.core.files import read_lines
from graft.core.ledger import DEPOT, is_upload
from graft.core.records import LedgerEntry, Phase
from graft.report.formatting import MINUS, NONE, bytes_text
from graft.report.tables import filled, markdown_grid
from graft.wire import overhead
from graft.wire.traffic_log import TrafficRecord

Stage = Literal["join", "profile", "probe", "learn"]
_STAGE_OF: Final[dict[Phase, Stage]] = {
    "join": "join", "profile": "profile", "backbone": "profile", "probe": "probe", "ship": "learn",
    "report": "learn", "grow": "learn", "register": "learn", "acknowledge": "learn",
}  # fmt: skip
Key = tuple[str, bool]  # stage, whether up
STAGES: Final[tuple[Stage, ...]] = ("join", "profile", "probe", "learn")
BETWEEN: Final = "between"
STAGED: Final = "stages"
ALL: Final = "all"
_COLUMNS: Final = (
    "payload_bytes", "measured_bytes", "counted_bytes", "modelled_bytes", "timed_bytes"
)  # fmt: skip
HEADINGS: Final = (
    "Stage", "Direction", "Ledger payload", "Measured wire", "Counted on the link",
    "Measured to counted", "Modelled wire", "Of that by time", "Modelled to measured",
)  # fmt: skip
NOTE: Final = (
    "Wire bytes are Ethernet frames with all headers. Measured: the kernel's counts of the "
    "TCP proxy's connections. Counted: interfaces of the link. Modelled: the simulation's ledger, "
    "with the calls and acknowledgements that go against its messages, the application's bundle, "
    "and, by time, what nodes sent while they waited and worked, for as long as each stage took."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTime:
    """When a stage of a round began and ended, in Unix time."""

    round_index: int
    stage: Stage
    began_s: float
    ended_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTraffic:
    """One stage's bytes one way, all rounds together.

    ``stage`` "stages" is their sum, "between" what no stage's time covers, "all" both.
    ``counted_bytes`` and ``modelled_bytes`` are None where there is no count or no model.
    ``timed_bytes``, part of the modelled ones, depend on how long nodes waited and worked.
    """

    stage: str
    up: bool
    payload_bytes: int
    measured_bytes: int
    counted_bytes: int | None
    modelled_bytes: int | None
    timed_bytes: int

    @property
    def count_difference(self) -> float | None:
        """Measured against counted, as a share of the latter."""
        return _difference(self.measured_bytes, self.counted_bytes)

    @property
    def model_difference(self) -> float | None:
        """Modelled against measured, as a share of the latter."""
        if self.modelled_bytes is None:
            return None
        return _difference(self.modelled_bytes, self.measured_bytes)


def read_stages(path: Path) -> list[StageTime]:
    """The stages that a ServerApp wrote, a JSON line each; raises RunError as ``read_lines``."""
    return read_lines(path, lambda row: StageTime(**row))


def reconcile(
    stages: Sequence[StageTime],
    entries: Sequence[LedgerEntry],
    measured: Sequence[TrafficRecord],
    counted: Sequence[TrafficRecord] | None = None,
    simulated: Sequence[LedgerEntry] | None = None,
    app_bytes: int = 0,
) -> tuple[StageTraffic, ...]:
    """The ledger's payload beside the wire bytes: the stages down and up, their sum, the traffic
    between stages, and everything.

    ``entries`` and ``simulated`` are the ledgers of the deployment and of a simulation of the same
    run. ``measured`` and ``counted`` are lines of the TCP proxy's log and of an independent count,
    each divided over the stages that its interval overlaps, evenly in time. ``app_bytes`` are the
    bundle and configuration that a node gets with its first exchange of a Flower run: the join or,
    without a join phase, the profile of each round, as each is a run then.
    """
    wire = _by_stage(stages, measured)
    link = None if counted is None else _by_stage(stages, counted)
    payload: dict[Key, int] = defaultdict(int)
    for entry in entries:
        payload[_STAGE_OF[entry.phase], is_upload(entry)] += entry.payload_bytes
    nodes = len({line.peer for line in measured if line.service == "flower"})
    model = timed = None
    if simulated is not None:
        timed = timed_bytes(stages, entries, nodes)
        model = modelled_bytes(simulated)
        for first, count in first_exchanges(entries).items():
            beside = (
                (0, 0) if first == "join" else (overhead.JOIN_DOWN_BYTES, overhead.JOIN_UP_BYTES)
            )
            bundle = overhead.stream_bytes(app_bytes) if app_bytes else 0
            model[first, False] += count * (beside[0] + bundle)
            model[first, True] += count * (beside[1] + overhead.returned_bytes(app_bytes))
    rows = [
        StageTraffic(
            stage=stage,
            up=up,
            payload_bytes=payload[stage, up],
            measured_bytes=round(wire[stage, up]),
            counted_bytes=None if link is None else round(link[stage, up]),
            modelled_bytes=None
            if model is None or timed is None or stage == BETWEEN
            else round(model[stage, up] + timed[stage, up]),
            timed_bytes=0 if timed is None else round(timed[stage, up]),
        )
        for stage in (*STAGES, BETWEEN)
        for up in (False, True)
    ]
    *staged, down, up_row = rows
    totals = _totals(STAGED, staged)
    return (*staged, *totals, down, up_row, *_totals(ALL, rows))


def traffic_cells(row: StageTraffic) -> tuple[str, ...]:
    """One row under ``HEADINGS``."""
    return (
        row.stage,
        "up" if row.up else "down",
        bytes_text(row.payload_bytes),
        bytes_text(row.measured_bytes),
        bytes_text(row.counted_bytes),
        _share_text(row.count_difference),
        bytes_text(row.modelled_bytes),
        NONE if row.modelled_bytes is None else bytes_text(row.timed_bytes),
        _share_text(row.model_difference),
    )


def traffic_rich(rows: Sequence[StageTraffic]) -> Table:
    """The table for the terminal."""
    styled = [(traffic_cells(row), "bold" if row.stage in (STAGED, ALL) else "") for row in rows]
    table = Table(caption=NOTE, caption_justify="left")
    return filled(table, HEADINGS, styled, text_columns=(0, 1))


def traffic_markdown(rows: Sequence[StageTraffic]) -> str:
    """The same table as Markdown, with its note below."""
    cells = [traffic_cells(row) for row in rows]
    return markdown_grid(HEADINGS, cells, text_columns=(0, 1)) + f"\n{NOTE}\n"


def traffic_dicts(rows: Sequence[StageTraffic]) -> list[dict[str, Any]]:
    """Plain values for JSON; differences are shares of 1."""
    return [
        {
            **asdict(row),
            "count_difference": row.count_difference,
            "model_difference": row.model_difference,
        }
        for row in rows
    ]


def _by_stage(stages: Sequence[StageTime], lines: Iterable[TrafficRecord]) -> dict[Key, float]:
    """Bytes of traffic lines by stage and direction."""
    shares: dict[Key, float] = defaultdict(float)
    for line in lines:
        span_s = line.until_s - line.since_s
        left = 1.0
        for stage in stages:
            common_s = min(line.until_s, stage.ended_s) - max(line.since_s, stage.began_s)
            if common_s <= 0 or span_s <= 0:
                continue
            share = min(left, common_s / span_s)
            left -= share
            shares[stage.stage, False] += share * line.carried.down_bytes
            shares[stage.stage, True] += share * line.carried.up_bytes
        shares[BETWEEN, False] += left * line.carried.down_bytes
        shares[BETWEEN, True] += left * line.carried.up_bytes
    return shares


def _totals(name: str, rows: Sequence[StageTraffic]) -> list[StageTraffic]:
    """The sums over ``rows``, down and up; None where one of them is None."""
    totals = []
    for up in (False, True):
        sums: dict[str, Any] = {}
        for column in _COLUMNS:
            numbers = [getattr(row, column) for row in rows if row.up is up]
            sums[column] = None if None in numbers else sum(numbers)
        totals.append(StageTraffic(stage=name, up=up, **sums))
    return totals


def _difference(one: int, other: int | None) -> float | None:
    return one / other - 1 if other else None


def _share_text(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:+.1f} %".replace("-", MINUS)


def modelled_bytes(entries: Iterable[LedgerEntry]) -> dict[Key, float]:
    """The ledger's modelled wire bytes, with the traffic against the messages' direction."""
    modelled: dict[Key, float] = defaultdict(float)
    fetches: dict[tuple[int, str, str, str], bool] = defaultdict(bool)
    for entry in entries:
        stage, up = _STAGE_OF[entry.phase], is_upload(entry)
        modelled[stage, up] += entry.wire_bytes
        if entry.cached or not entry.wire_bytes:
            continue
        modelled[stage, not up] += overhead.returned_bytes(entry.wire_bytes)
        if DEPOT in (entry.sender, entry.receiver):
            fetch = not up and entry.phase != "acknowledge"
            modelled[stage, True] += overhead.FETCH_UP_BYTES if fetch else 0
            fetches[entry.round_index, entry.domain_id, entry.method, stage] |= fetch
    for (_, _, _, name), fetched in fetches.items():
        # The first call's own row has the connection's bytes of that call's direction.
        modelled[name, fetched] += (
            overhead.CONNECTION_UP_BYTES if fetched else overhead.CONNECTION_DOWN_BYTES
        )
    return modelled


def first_exchanges(entries: Iterable[LedgerEntry]) -> dict[Stage, int]:
    """How many exchanges were a node's first of a Flower run, by stage."""
    stages = [_STAGE_OF[entry.phase] for entry in entries if is_upload(entry)]
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
            exchanges[entry.round_index, _STAGE_OF[entry.phase]].append(entry.measured_s)
    timed: dict[Key, float] = defaultdict(float)
    for time in stages:
        whole_s = time.ended_s - time.began_s
        known_s = exchanges[time.round_index, time.stage]
        took_s = [
            min(whole_s, overhead.EXCHANGE_S if one_s is None else one_s) for one_s in known_s
        ]
        idle_s = max(0.0, nodes * whole_s - sum(took_s))
        work_s = sum(max(0.0, one_s - overhead.EXCHANGE_S) for one_s in took_s)
        spared = sum(overhead.spared_share(one_s) for one_s in took_s)
        timed[time.stage, True] += (
            overhead.WAIT_UP_BYTES_PER_S * idle_s
            + overhead.WORK_UP_BYTES_PER_S * work_s
            - overhead.SPARED_UP_BYTES * spared
        )
        timed[time.stage, False] += (
            overhead.WAIT_DOWN_BYTES_PER_S * idle_s
            + overhead.WORK_DOWN_BYTES_PER_S * work_s
            - overhead.SPARED_DOWN_BYTES * spared
        )
    return timed
