"""The ledger keeps every row, in an order of its own, and adds up."""

import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core.ledger import DEPOT, SERVER, is_upload, ordered, total_bytes
from graft.core.records import LedgerEntry
from graft.core.tables import LEDGER_SCHEMA, ledger_entries, ledger_table, read_ledger, write_ledger
from graft.errors import RunError

NAME = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=6)
BYTES = st.integers(0, 2**62)
SECONDS = st.none() | st.floats(0, 1e9)
ENTRIES = st.builds(
    LedgerEntry,
    run=NAME,
    round_index=st.integers(0, 2**31 - 1),
    phase=st.sampled_from(
        ["join", "profile", "probe", "ship", "report", "register", "acknowledge"]
    ),
    method=NAME,
    domain_id=NAME,
    sender=NAME,
    receiver=NAME,
    message=NAME,
    attempt=st.integers(0, 9),
    payload_bytes=BYTES,
    wire_bytes=BYTES,
    wire_source=st.sampled_from(["measured", "modelled"]),
    measured_s=SECONDS,
    simulated_s=SECONDS,
    cached=st.booleans(),
    outcome=st.sampled_from(["ok", "failed", "refused", "lost"]),
)


def entry(payload_bytes: int, down: bool = True, **rest: object) -> LedgerEntry:
    whole = LedgerEntry(
        run="run",
        round_index=1,
        phase="ship",
        method="hat",
        domain_id="ann",
        sender=DEPOT if down else "ann",
        receiver="ann" if down else DEPOT,
        message="payload.base",
        payload_bytes=payload_bytes,
        wire_bytes=payload_bytes + 30,
        wire_source="modelled",
    )
    return replace(whole, **rest)  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(st.lists(ENTRIES, max_size=5))
def test_a_ledger_goes_through_parquet_unchanged(
    tmp_path_factory: pytest.TempPathFactory, entries: list[LedgerEntry]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.parquet"
    write_ledger(entries, path)
    assert read_ledger(path) == ordered(entries)
    assert ledger_entries(ledger_table(entries)) == entries
    assert [file.name for file in path.parent.iterdir()] == ["ledger.parquet"]


# What one device does over and over: rows that differ in few columns, times left out.
ALIKE = st.builds(
    entry,
    payload_bytes=st.sampled_from([0, 10]),
    down=st.booleans(),
    attempt=st.integers(0, 1),
    cached=st.booleans(),
    wire_bytes=st.sampled_from([0, 40]),
    outcome=st.sampled_from(["ok", "lost"]),
)


@given(st.lists(ALIKE, max_size=8), st.randoms())
def test_the_order_of_arrival_does_not_show(
    entries: list[LedgerEntry], chance: random.Random
) -> None:
    shuffled = entries.copy()
    chance.shuffle(shuffled)
    assert ordered(shuffled) == ordered(entries)


def test_totals_are_sums_of_payload_bytes() -> None:
    entries = [
        entry(100),
        entry(0, cached=True),
        entry(40, method="label-only"),
        entry(7, down=False),
        entry(30, outcome="lost"),
    ]
    # What was lost was spent all the same: 100 + 0 + 40 + 7 + 30.
    assert total_bytes(entries) == 177
    assert total_bytes(entries, is_upload) == 7
    assert total_bytes(entries, lambda e: e.method == "hat" and not is_upload(e)) == 130
    assert total_bytes([]) == 0


def test_up_is_from_a_domain_whoever_receives() -> None:
    assert is_upload(entry(1, down=False))
    assert is_upload(entry(1, sender="ann", receiver=SERVER))
    assert not is_upload(entry(1))


def test_columns_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.parquet"
    pq.write_table(pa.table({"run": ["r"]}), path)
    with pytest.raises(RunError, match="columns"):
        read_ledger(path)
    pq.write_table(ledger_table([entry(1)]).select(LEDGER_SCHEMA.names[::-1]), path)
    with pytest.raises(RunError, match="columns"):
        read_ledger(path)


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none\.parquet"):
        read_ledger(tmp_path / "none.parquet")
    path = tmp_path / "torn.parquet"
    write_ledger([entry(1)], path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"torn\.parquet"):
        read_ledger(path)
