"""What rides beside an answer, and how both sides keep it."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.core.exchange import ProbeRequest
from graft.core.ledger import DEPOT
from graft.core.records import LedgerEntry
from graft.errors import MessageError
from graft.wire.messages.replies import Reply, ReplyFolder, decode_transfers, encode_transfers
from graft.wire.stubs import messages_pb2 as pb

REQUEST = ProbeRequest(
    domain_id="ann", round_index=3, method="hat", candidates=(), coarse_distances=()
)


def entry(**changes: object) -> LedgerEntry:
    fetched = LedgerEntry(
        run="run-1", round_index=3, phase="probe", method="hat", domain_id="ann", sender=DEPOT,
        receiver="ann", message="payload.base", payload_bytes=70, wire_bytes=90,
        wire_source="measured", measured_s=0.5,
    )  # fmt: skip
    return replace(fetched, **changes)  # type: ignore[arg-type]


pushed = {"phase": "register", "sender": "ann", "receiver": DEPOT}
entries = st.lists(
    st.builds(
        lambda num, wire, seconds, attempt, cached, outcome, way: entry(
            payload_bytes=num, wire_bytes=wire, measured_s=seconds, attempt=attempt, cached=cached,
            outcome=outcome, **way,
        ),
        st.integers(0, 2**40), st.integers(0, 2**40), st.floats(0, 1e6), st.integers(0, 9),
        st.booleans(), st.sampled_from(["ok", "failed", "refused", "lost"]),
        st.sampled_from([{}, pushed, {"phase": "ship", "message": "payload.residual"}]),
    )
)  # fmt: skip


@given(entries)
def test_transfers_come_back_as_the_rows_they_were(rows: list[LedgerEntry]) -> None:
    assert decode_transfers(encode_transfers(rows), REQUEST, "run-1") == rows


@given(st.binary(max_size=200))
def test_other_bytes_are_rows_or_a_message_error(data: bytes) -> None:
    try:
        rows = decode_transfers(data, REQUEST, "run-1")
    except MessageError:
        return
    assert all(row.domain_id == "ann" and row.round_index == 3 for row in rows)


@pytest.mark.parametrize(
    "row",
    [
        pb.Transfer(phase="probe", message="query.probe", outcome="ok"),
        pb.Transfer(phase="probe", message="payload.secret", outcome="ok"),
        pb.Transfer(phase="lunch", message="payload.base", outcome="ok"),
        pb.Transfer(phase="probe", message="payload.base", outcome="fine"),
        pb.Transfer(phase="probe", message="payload.base", outcome="ok", payload_bytes=2**64 - 1),
        pb.Transfer(phase="probe", message="payload.base", outcome="ok", measured_s=float("nan")),
        pb.Transfer(phase="probe", message="payload.base", outcome="ok", measured_s=-1.0),
    ],
)
def test_an_impossible_row_is_refused(row: pb.Transfer) -> None:
    data = pb.Transfers(rows=[row]).SerializeToString()
    with pytest.raises(MessageError, match="transfers of ann"):
        decode_transfers(data, REQUEST, "run-1")


def test_more_than_any_order_moves_is_refused_before_parsing() -> None:
    with pytest.raises(MessageError, match="limit"):
        decode_transfers(bytes(8 * 1024 * 1024 + 1), REQUEST, "run-1")


def test_a_kept_reply_is_found_by_its_order_alone(tmp_path: Path) -> None:
    folder = ReplyFolder(tmp_path / "replies")
    assert folder.load(b"order") is None
    reply = Reply(response=b"answer", transfers=encode_transfers([entry()]))
    folder.save(b"order", reply)
    assert ReplyFolder(tmp_path / "replies").load(b"order") == reply
    assert folder.load(b"another") is None


def test_a_damaged_reply_counts_as_none(tmp_path: Path) -> None:
    folder = ReplyFolder(tmp_path)
    folder.save(b"order", Reply(response=b"answer"))
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"\xff\xff\xff")
    assert folder.load(b"order") is None
