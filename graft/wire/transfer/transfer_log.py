"""The ledger rows of a device's transfers."""

from collections.abc import Callable
from dataclasses import dataclass

from graft.core.ledger import DEPOT
from graft.core.records import LedgerEntry, Outcome, Phase
from graft.errors import DeviceRefusedError, ModelMissingError, PayloadError, TransportError
from graft.wire.overhead import data_message_bytes, stream_bytes
from graft.wire.transfer.link import CHUNK_BYTES, Part, WireSource


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferLabel:
    """Which ledger columns this device's transfers are charged to."""

    run: str
    round_index: int
    method: str
    domain_id: str


class TransferLog:
    """Writes one row a transfer attempt; ``record`` gets them."""

    def __init__(
        self, label: TransferLabel, record: Callable[[LedgerEntry], None], wire_source: WireSource
    ) -> None:
        self._label = label
        self._record = record
        self._wire_source: WireSource = wire_source

    def write(
        self,
        phase: Phase,
        what: str,
        *,
        attempt: int = 0,
        payload_bytes: int = 0,
        wire_bytes: int = 0,
        measured_s: float | None = 0.0,
        cached: bool = False,
        outcome: Outcome = "ok",
        wire_source: WireSource | None = None,
    ) -> None:
        label, upwards = self._label, phase == "register"
        self._record(
            LedgerEntry(
                run=label.run,
                round_index=label.round_index,
                phase=phase,
                method=label.method,
                domain_id=label.domain_id,
                sender=label.domain_id if upwards else DEPOT,
                receiver=DEPOT if upwards else label.domain_id,
                message=f"payload.{what}",
                attempt=attempt,
                payload_bytes=payload_bytes,
                wire_bytes=wire_bytes,
                wire_source=wire_source or self._wire_source,
                measured_s=measured_s,
                cached=cached,
                outcome=outcome,
            )
        )

    def write_lost(self, phase: Phase, part: Part, payload_bytes: int) -> None:
        """What a process was killed over before it could write it down; its wire is modelled."""
        self.write(
            phase,
            part,
            payload_bytes=payload_bytes,
            wire_bytes=chunked_bytes(payload_bytes),
            measured_s=None,
            outcome="lost",
            wire_source="modelled",
        )


def chunked_bytes(num_bytes: int) -> int:
    """Wire bytes of ``num_bytes`` in chunks."""
    whole, rest = divmod(num_bytes, CHUNK_BYTES)
    return sum(
        count * stream_bytes(data_message_bytes(length))
        for count, length in ((whole, CHUNK_BYTES), (min(rest, 1), rest))
        if count
    )


def outcome_of(error: BaseException) -> Outcome:
    """How the ledger names a transfer that ended in ``error``."""
    if isinstance(error, PayloadError | ModelMissingError | DeviceRefusedError):
        return "refused"
    return "lost" if isinstance(error, TransportError) else "failed"
