"""A finished model going up: on from what the store holds already, metered on every attempt."""

from collections.abc import Callable
from itertools import count

from graft.core.ports import Clock
from graft.core.records import Outcome
from graft.errors import PayloadError
from graft.wire.overhead import acknowledged_bytes
from graft.wire.transfer.cache import FolderCache
from graft.wire.transfer.link import Part, Progress, StoredModel, acknowledgement_bytes
from graft.wire.transfer.retries import Retries
from graft.wire.transfer.transfer_log import TransferLog, outcome_of
from graft.wire.transfer.upload_plan import UploadLink, UploadPlan


def write_once(
    send: Callable[[Progress], StoredModel], *, rows: TransferLog, clock: Clock, attempt: int
) -> StoredModel:
    """One try to push; a row for every part of which bytes were sent, whatever happens."""
    sent: dict[Part, tuple[int, int]] = {}
    start_s = clock()

    def progress(part: Part, payload_bytes: int, wire_bytes: int) -> None:
        before = sent.get(part, (0, 0))
        sent[part] = (before[0] + payload_bytes, before[1] + wire_bytes)

    outcome: Outcome = "ok"
    stored: StoredModel | None = None
    try:
        stored = send(progress)
    except BaseException as error:
        outcome = outcome_of(error)
        raise
    finally:
        # The parts share one stream, so the time stands once, on its first row.
        measured_s = clock() - start_s
        # A copy: a link's own thread may still count while a failed stream winds down.
        for part, (payload_bytes, wire_bytes) in list(sent.items()):
            rows.write(
                "register",
                part,
                attempt=attempt,
                payload_bytes=payload_bytes,
                wire_bytes=wire_bytes,
                measured_s=measured_s,
                outcome=outcome,
            )
            measured_s = 0.0
    write_acknowledged(stored, rows, attempt)
    return stored


def write_acknowledged(stored: StoredModel, rows: TransferLog, attempt: int) -> None:
    """The row of the store's answer."""
    num_bytes = acknowledgement_bytes(stored)
    rows.write(
        "acknowledge",
        "stored",
        attempt=attempt,
        payload_bytes=num_bytes,
        wire_bytes=acknowledged_bytes(num_bytes),
    )


class ModelUpload:
    """Sends one parcel, over as many streams, and processes, as it takes.

    ``notes`` remember that a push has begun and how much of it the ledger tells, so that the
    process after a killed one neither sends nor counts those bytes again.
    """

    def __init__(
        self,
        upload_plan: UploadPlan,
        notes: FolderCache,
        *,
        link: UploadLink,
        rows: TransferLog,
        clock: Clock,
    ) -> None:
        self._upload_plan = upload_plan
        self._notes = notes
        self._link = link
        self._rows = rows
        self._clock = clock
        self._attempts = count()
        self._offset = 0
        told = notes.sent_bytes(upload_plan.model.model_id)
        self._begun, self._told = told is not None, told or 0
        self._first = True

    def run(self, retries: Retries) -> StoredModel:
        """Until it is stored; a store that held damaged bytes gets the whole once more."""
        what = lambda: f"push of {self._upload_plan.model.model_id}: not stored"  # noqa: E731
        try:
            stored = retries.run(what, self._send_once)
        except PayloadError:
            if not self._offset:
                raise
            stored = retries.run(what, self._send_once)
        self._note(None)
        return stored

    def _send_once(self) -> StoredModel:
        state = self._link.received(self._upload_plan)
        if self._begun and state.stored is not None:
            # Stored, but the answer never came back.
            self._write_lost(self._upload_plan.num_bytes)
            write_acknowledged(state.stored, self._rows, next(self._attempts))
            return state.stored
        if self._first:
            self._write_lost(state.num_bytes)
            self._first = False
        self._offset = state.num_bytes
        if not self._begun:
            self._begun = True
            self._note(self._told)
        sent = 0

        def send(progress: Progress) -> StoredModel:
            def counted(part: Part, payload_bytes: int, wire_bytes: int) -> None:
                nonlocal sent
                sent += payload_bytes
                progress(part, payload_bytes, wire_bytes)

            return self._link.send(self._upload_plan, self._offset, counted)

        try:
            return write_once(
                send, rows=self._rows, clock=self._clock, attempt=next(self._attempts)
            )
        finally:
            self._told = self._offset + sent
            self._note(self._told)

    def _write_lost(self, held_bytes: int) -> None:
        """Rows for what arrived of an earlier process that was killed before it wrote its own."""
        if not self._begun or not self._first or held_bytes <= self._told:
            return
        for part, (start, end) in self._upload_plan.spans(self._told, held_bytes).items():
            self._rows.write_lost("register", part, end - start)
        self._told = held_bytes
        self._note(self._told)
        next(self._attempts)

    def _note(self, told: int | None) -> None:
        self._notes.note_sent(self._upload_plan.model.model_id, told)
