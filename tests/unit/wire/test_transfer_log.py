"""A journal keeps every entry that was written whole, whoever died."""

from dataclasses import replace
from pathlib import Path

import pytest

from graft.core.records import LedgerEntry
from graft.errors import RunError
from graft.wire.transfer.transfer_log import JournalMeter, read_journal

ENTRY = LedgerEntry(
    run="r",
    round_index=1,
    phase="ship",
    method="hat",
    domain_id="d",
    sender="depot",
    receiver="d",
    message="payload.base",
    payload_bytes=10,
    wire_bytes=12,
    wire_source="modelled",
    measured_s=0.25,
)


def test_entries_come_back_in_the_order_written(tmp_path: Path) -> None:
    meter = JournalMeter(tmp_path / "new" / "j.jsonl")
    entries = [replace(ENTRY, attempt=attempt) for attempt in range(3)]
    for entry in entries:
        meter.record(entry)
    assert read_journal(tmp_path / "new" / "j.jsonl") == entries  # without closing


def test_a_torn_last_line_is_left_out_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    JournalMeter(path).record(ENTRY)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-9])
    assert read_journal(path) == [ENTRY]
    JournalMeter(path).record(replace(ENTRY, attempt=1))
    assert read_journal(path) == [ENTRY, replace(ENTRY, attempt=1)]


@pytest.mark.parametrize("line", [b"{}\n", b"nonsense\n", b'{"run": "r"}\n', b"[1]\n"])
def test_a_line_that_is_no_entry_names_its_place(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "j.jsonl"
    JournalMeter(path).record(ENTRY)
    with path.open("ab") as file:
        file.write(line)
    with pytest.raises(RunError, match="line 2"):
        read_journal(path)


def test_a_missing_journal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="missing"):
        read_journal(tmp_path / "none")
