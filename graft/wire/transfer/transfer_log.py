"""The ledger rows of a device's transfers, and the journal that keeps them at once."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graft.core.files import LineFile, read_lines
from graft.core.ledger import DEPOT
from graft.core.records import LedgerEntry, Outcome, Phase
from graft.errors import DeviceRefusedError, ModelMissingError, PayloadError, TransportError
from graft.wire.transfer.link import Part, WireSource, chunked_bytes


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


def outcome_of(error: BaseException) -> Outcome:
    """How the ledger names a transfer that ended in ``error``."""
    if isinstance(error, PayloadError | ModelMissingError | DeviceRefusedError):
        return "refused"
    return "lost" if isinstance(error, TransportError) else "failed"


class JournalMeter:
    """A ledger that survives a killed process: a JSON line an entry, each written whole at once.

    One writer a path. Opening cuts off a line that an earlier writer was killed in.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)

    def record(self, entry: LedgerEntry) -> None:
        """Append one entry; it is with the operating system when this returns.

        Raises RunError where it cannot be written whole.
        """
        self._file.append(dataclasses.asdict(entry))

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> list[LedgerEntry]:
    """All whole entries, in the order written; a torn last line is left out.

    Raises RunError for a missing journal or a line that is not an entry.
    """
    return read_lines(path, lambda row: LedgerEntry(**row))
