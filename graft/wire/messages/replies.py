"""A deployed device's reply: its response, and the ledger rows of its transfers.

The rows travel with the response because the server cannot read the device's disk. Both sides save
a reply until its round is over, so that a killed process does not have it computed twice.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast, get_args

from google.protobuf.message import DecodeError

from graft.core.exchange import Request
from graft.core.files import AnyPath, replace_file
from graft.core.ledger import DEPOT
from graft.core.ranges import check_ranges
from graft.core.records import LedgerEntry, Outcome, Phase
from graft.errors import MessageError
from graft.wire.stubs import messages_pb2 as pb

MESSAGE_TRANSFERS: Final = "transfers"
MAX_TRANSFER_ROWS: Final = 100_000
_MAX_TRANSFER_BYTES: Final = 8 * 1024 * 1024
_PARTS: Final = {"base", "residual", "exact", "stored"}
_PHASES: Final = set(get_args(Phase))
_OUTCOMES: Final = set(get_args(Outcome))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An encoded answer and the encoded rows of its transfers."""

    response: bytes
    transfers: bytes = b""


def request_digest(request: bytes) -> str:
    """SHA-256 (hex) of an encoded request, under which both sides save its reply."""
    return hashlib.sha256(request).hexdigest()


class ReplyFolder:
    """Replies by the SHA-256 of their request; each is written whole."""

    def __init__(self, path: AnyPath) -> None:
        self._path = path

    def load(self, request: bytes) -> Reply | None:
        """The reply to an encoded request, or None."""
        try:
            saved = pb.KeptReply.FromString(self._file(request).read_bytes())
        except (FileNotFoundError, DecodeError):
            return None
        return Reply(response=saved.response, transfers=saved.transfers)

    def save(self, request: bytes, reply: Reply) -> None:
        """Save a reply durably."""
        saved = pb.KeptReply(response=reply.response, transfers=reply.transfers)
        replace_file(self._file(request), saved.SerializeToString(), mode=0o600)

    def _file(self, request: bytes) -> AnyPath:
        return self._path / request_digest(request)


def encode_transfers(entries: Sequence[LedgerEntry]) -> bytes:
    """The rows of one request's transfers, without the columns that the request gives."""
    names = [name for name in pb.Transfer.DESCRIPTOR.fields_by_name if name != "measured_s"]
    rows = [
        pb.Transfer(
            measured_s=entry.measured_s or 0.0, **{name: getattr(entry, name) for name in names}
        )
        for entry in entries
    ]
    data: bytes = pb.Transfers(rows=rows).SerializeToString(deterministic=True)
    return data


def decode_transfers(data: bytes, request: Request, run: str) -> list[LedgerEntry]:
    """The ledger's rows of what a device moved for ``request``; raises MessageError."""
    if len(data) > _MAX_TRANSFER_BYTES:
        raise MessageError(f"transfers: got {len(data)} bytes, limit {_MAX_TRANSFER_BYTES}")
    try:
        rows = pb.Transfers.FromString(data).rows
    except DecodeError as error:
        raise MessageError(f"transfers of {request.domain_id}: {error}") from error
    if len(rows) > MAX_TRANSFER_ROWS:
        raise MessageError(f"transfers: got {len(rows)} rows, limit {MAX_TRANSFER_ROWS}")
    return [_entry(row, request, run) for row in rows]


def _entry(row: pb.Transfer, request: Request, run: str) -> LedgerEntry:
    kind, _, part = row.message.partition(".")
    if (
        kind != "payload"
        or part not in _PARTS
        or row.phase not in _PHASES
        or row.outcome not in _OUTCOMES
    ):
        raise MessageError(f"transfers of {request.domain_id}: got a row {row!r:.200}")
    upwards = row.phase == "register"
    entry = LedgerEntry(
        run=run,
        round_index=request.round_index,
        phase=cast(Phase, row.phase),
        method=request.method,
        domain_id=request.domain_id,
        sender=request.domain_id if upwards else DEPOT,
        receiver=DEPOT if upwards else request.domain_id,
        message=row.message,
        attempt=row.attempt,
        payload_bytes=row.payload_bytes,
        wire_bytes=row.wire_bytes,
        wire_source="measured",
        measured_s=row.measured_s,
        cached=row.cached,
        outcome=cast(Outcome, row.outcome),
    )
    check_ranges(entry, f"transfers of {request.domain_id}: ")
    return entry
