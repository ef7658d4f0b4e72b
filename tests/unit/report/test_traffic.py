"""What a link carried, reconciled by hand: by stage and direction, three sides of it."""

from pathlib import Path

import pytest

from graft.core.files import LineFile
from graft.core.records import LedgerEntry, Phase
from graft.errors import RunError
from graft.report.traffic import (
    StageTime,
    StageTraffic,
    first_exchanges,
    read_stages,
    reconcile,
    timed_bytes,
    traffic_dicts,
    traffic_markdown,
    traffic_rich,
)
from graft.wire.overhead import spared_share
from graft.wire.traffic_log import TrafficCounters, TrafficRecord

JOIN = StageTime(round_index=0, stage="join", began_s=100.0, ended_s=110.0)
LEARN = StageTime(round_index=0, stage="learn", began_s=120.0, ended_s=150.0)


def line(
    since_s: float, until_s: float, up: int, down: int, service: str = "flower"
) -> TrafficRecord:
    carried = TrafficCounters(up_bytes=up, down_bytes=down, up_segments=1, down_segments=1)
    return TrafficRecord(
        since_s=since_s, until_s=until_s, peer="10.0.0.1", service=service, carried=carried
    )


def entry(
    phase: Phase, sender: str, receiver: str, wire_bytes: int, payload_bytes: int = 10,
    measured_s: float | None = None, cached: bool = False,
) -> LedgerEntry:  # fmt: skip
    return LedgerEntry(
        run="r", round_index=0, phase=phase, method="graft", domain_id="ward", sender=sender,
        receiver=receiver, message="m", payload_bytes=payload_bytes, wire_bytes=wire_bytes,
        wire_source="modelled", measured_s=measured_s, cached=cached,
    )  # fmt: skip


def row(rows: tuple[StageTraffic, ...], stage: str, *, up: bool) -> StageTraffic:
    return next(row for row in rows if (row.stage, row.up) == (stage, up))


def test_a_line_that_two_stages_touch_is_shared_out_by_time() -> None:
    # 5 of 20 s lie in the join, 10 between, 5 in the learning.
    rows = reconcile([JOIN, LEARN], [], [line(105.0, 125.0, up=400, down=800)])
    assert row(rows, "join", up=True).measured_bytes == 100
    assert row(rows, "between", up=True).measured_bytes == 200
    assert row(rows, "learn", up=False).measured_bytes == 200
    assert row(rows, "stages", up=False).measured_bytes == 400
    assert row(rows, "all", up=False).measured_bytes == 800


def test_measured_stands_against_what_was_counted() -> None:
    measured = [line(101.0, 102.0, up=990, down=500), line(121.0, 122.0, up=0, down=1010)]
    counted = [line(101.0, 102.0, up=1000, down=500, service="link")]
    rows = reconcile([JOIN, LEARN], [], measured, counted)
    assert row(rows, "join", up=True).count_difference == pytest.approx(-0.01)
    assert row(rows, "join", up=False).count_difference == 0.0
    assert row(rows, "learn", up=False).count_difference is None  # nothing was counted there
    assert row(rows, "join", up=True).modelled_bytes is None
    assert row(rows, "join", up=True).model_difference is None


def test_the_ledger_is_summed_by_stage_and_direction() -> None:
    entries = [
        entry("join", "server", "ward", 0, 1),
        entry("join", "ward", "server", 0, 2),
        entry("ship", "server", "ward", 0, 4),
        entry("ship", "depot", "ward", 0, 8),
        entry("register", "ward", "depot", 0, 16),
        entry("acknowledge", "depot", "ward", 0, 32),
        entry("report", "ward", "server", 0, 64),
    ]
    rows = reconcile([JOIN, LEARN], entries, [])
    assert [row(rows, "join", up=up).payload_bytes for up in (False, True)] == [1, 2]
    assert [row(rows, "learn", up=up).payload_bytes for up in (False, True)] == [44, 80]


def test_a_fetch_has_its_call_its_acknowledgements_and_a_connection_against_it() -> None:
    fetches = [
        entry("probe", "depot", "ward", 15_140),  # ten segments, of which two are acknowledged
        entry("probe", "depot", "ward", 1_000),
        entry("probe", "depot", "ward", 0, cached=True),
    ]
    push = [entry("register", "ward", "depot", 1_000), entry("acknowledge", "depot", "ward", 300)]
    rows = reconcile([], [], [], simulated=[*fetches, *push])
    assert row(rows, "probe", up=False).modelled_bytes == 16_140
    assert row(rows, "probe", up=True).modelled_bytes == 2 * 66 + 2 * 269 + 2_730
    assert row(rows, "learn", up=True).modelled_bytes == 1_000
    assert row(rows, "learn", up=False).modelled_bytes == 300 + 3_040


def test_nodes_that_wait_poll_and_those_that_work_say_that_they_live() -> None:
    # Two nodes in 30 s: one answers after 20 s, 8 longer than an exchange has in it.
    entries = [entry("report", "ward", "server", 0, measured_s=20.0)]
    timed = timed_bytes([LEARN], entries, nodes=2)
    assert timed["learn", True] == pytest.approx(414 * 40 + 110 * 8)
    assert timed["learn", False] == pytest.approx(110 * 40 + 97 * 8)


def test_a_quick_answer_spares_a_connection() -> None:
    # Idle for 5 s at most, 1.5 s of calls; until it asked, 0 to 3 s of the exchange went by.
    assert [spared_share(seconds) for seconds in (4.0, 6.5, 8.0, 9.5, 30.0)] == [1, 1, 0.5, 0, 0]
    entries = [entry("report", "ward", "server", 0, measured_s=4.0)]
    timed = timed_bytes([LEARN], entries, nodes=1)
    assert timed["learn", False] == pytest.approx(110 * 26 - 2_900)
    assert timed["learn", True] == pytest.approx(414 * 26 - 2_000)


def test_where_nobody_joins_the_first_exchange_is_the_profiles() -> None:
    measured = [line(101.0, 102.0, up=1, down=1)]
    told = [entry("profile", "ward", "server", 1_000)]
    stage = StageTime(round_index=0, stage="profile", began_s=100.0, ended_s=102.0)
    rows = {
        size: reconcile([stage], told, measured, simulated=told, app_bytes=size)
        for size in (0, 1_426)
    }
    # A run's first exchange has 2.4 kB down, and behind it the bundle: one record, one segment.
    assert (
        row(rows[1_426], "profile", up=False).modelled_bytes
        - row(rows[0], "profile", up=False).modelled_bytes
        == 1_426 + 22 + 66
    )
    assert first_exchanges(told) == {"profile": 1}
    assert first_exchanges([*told, entry("join", "ward", "server", 0)]) == {"join": 1}


def test_each_node_gets_the_bundle_as_it_joins() -> None:
    measured = [line(101.0, 102.0, up=1, down=1)]
    told = [entry("join", "ward", "server", 1_000)]
    plain, bundled = (
        reconcile([JOIN], told, measured, simulated=told, app_bytes=size) for size in (0, 1_426)
    )
    more = (
        row(bundled, "join", up=False).modelled_bytes - row(plain, "join", up=False).modelled_bytes
    )
    assert more == 1_426 + 22 + 66


def test_every_row_stands_in_every_table(tmp_path: Path) -> None:
    rows = reconcile([JOIN], [], [line(101.0, 102.0, up=990, down=500)], [], [])
    assert len(rows) == 2 * (4 + 3) == len(traffic_dicts(rows)) == traffic_rich(rows).row_count
    assert traffic_markdown(rows).count("| join |") == 2
    assert traffic_dicts(rows)[0]["stage"] == "join"


def test_stages_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "stages.jsonl"
    file = LineFile(path)
    for stage in (JOIN, LEARN):
        file.append(
            {
                "round_index": stage.round_index,
                "stage": stage.stage,
                "began_s": stage.began_s,
                "ended_s": stage.ended_s,
            }
        )
    file.close()
    assert read_stages(path) == [JOIN, LEARN]
    with pytest.raises(RunError, match="missing"):
        read_stages(tmp_path / "none.jsonl")
