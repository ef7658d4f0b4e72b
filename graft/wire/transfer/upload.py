"""A finished model going up, continued from what the store has, with a row an attempt."""

from itertools import count

from graft.core.records import Outcome
from graft.errors import PayloadError
from graft.wire.overhead import acknowledged_bytes
from graft.wire.transfer.attempts import Transfers
from graft.wire.transfer.link import Part, StoredModel, UploadPlan, acknowledgement_bytes
from graft.wire.transfer.transfer_log import outcome_of


class ModelUpload:
    """Sends one upload, over as many streams, and processes, as it takes.

    The cache notes that an upload has begun and how much of it has ledger rows, so that the
    process after a killed one neither sends nor counts those bytes again.
    """

    def __init__(self, plan: UploadPlan, transfers: Transfers) -> None:
        self._plan = plan
        self._transfers = transfers
        self._attempts = count()
        self._offset = 0
        noted = transfers.cache.sent_bytes(plan.model_id)
        self._begun, self._recorded_bytes = noted is not None, noted or 0
        self._first = True

    def run(self) -> StoredModel:
        """Until it is stored; where the store had damaged bytes, the whole is sent once more."""
        what = lambda: f"push of {self._plan.model_id}: not stored"  # noqa: E731
        retries = self._transfers.retries
        try:
            stored = retries.run(what, self._send_rest)
        except PayloadError:
            if not self._offset:
                raise
            stored = retries.run(what, self._send_rest)
        self._transfers.cache.note_sent(self._plan.model_id, None)
        return stored

    def _send_rest(self) -> StoredModel:
        state = self._transfers.link.received(self._plan)
        if self._begun and state.stored is not None:
            # Stored, but the answer never came back.
            self._write_lost(self._plan.num_bytes)
            self._write_acknowledged(state.stored, next(self._attempts))
            return state.stored
        if self._first:
            self._write_lost(state.num_bytes)
            self._first = False
        self._offset = state.num_bytes
        if not self._begun:
            self._begun = True
            self._note(self._recorded_bytes)
        return self._send_once(next(self._attempts))

    def _send_once(self, attempt: int) -> StoredModel:
        """One stream; a row for every part of which bytes were sent, whatever happens."""
        counted: dict[Part, tuple[int, int]] = {}
        start_s = self._transfers.clock()

        def progress(part: Part, payload_bytes: int, wire_bytes: int) -> None:
            before = counted.get(part, (0, 0))
            counted[part] = (before[0] + payload_bytes, before[1] + wire_bytes)

        outcome: Outcome = "ok"
        try:
            stored = self._transfers.link.send(self._plan, self._offset, progress)
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            # A copy: a link's own thread may still count while a failed stream winds down.
            sent = list(counted.items())
            # The parts share one stream, so only its first row has the time.
            measured_s = self._transfers.clock() - start_s
            for part, (payload_bytes, wire_bytes) in sent:
                self._transfers.log.write(
                    "register",
                    part,
                    attempt=attempt,
                    payload_bytes=payload_bytes,
                    wire_bytes=wire_bytes,
                    measured_s=measured_s,
                    outcome=outcome,
                )
                measured_s = 0.0
            self._note(self._offset + sum(payload_bytes for _, (payload_bytes, _) in sent))
        self._write_acknowledged(stored, attempt)
        return stored

    def _write_acknowledged(self, stored: StoredModel, attempt: int) -> None:
        """The row of the store's answer."""
        num_bytes = acknowledgement_bytes(stored)
        self._transfers.log.write(
            "acknowledge",
            "stored",
            attempt=attempt,
            payload_bytes=num_bytes,
            wire_bytes=acknowledged_bytes(num_bytes),
        )

    def _write_lost(self, received_bytes: int) -> None:
        """Rows for what arrived of an earlier process that was killed before it wrote its own."""
        if not self._begun or not self._first or received_bytes <= self._recorded_bytes:
            return
        for part, (start, end) in self._plan.spans(self._recorded_bytes, received_bytes).items():
            self._transfers.log.write_lost("register", part, end - start)
        self._note(received_bytes)
        next(self._attempts)

    def _note(self, recorded_bytes: int) -> None:
        self._recorded_bytes = recorded_bytes
        self._transfers.cache.note_sent(self._plan.model_id, recorded_bytes)
