"""A finished model going up, continued from what the store has, with a row an attempt."""

from collections.abc import Callable
from itertools import count

from graft.core.ports import Clock
from graft.core.records import Outcome
from graft.errors import PayloadError
from graft.wire.overhead import acknowledged_bytes
from graft.wire.transfer.cache import PartCache
from graft.wire.transfer.link import (
    Link,
    Part,
    Progress,
    StoredModel,
    UploadPlan,
    acknowledgement_bytes,
)
from graft.wire.transfer.retries import Retries
from graft.wire.transfer.transfer_log import TransferLog, outcome_of


def _send_logged(
    send: Callable[[Progress], StoredModel], *, log: TransferLog, clock: Clock, attempt: int
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
        # The parts share one stream, so only its first row has the time.
        measured_s = clock() - start_s
        # A copy: a link's own thread may still count while a failed stream winds down.
        for part, (payload_bytes, wire_bytes) in list(sent.items()):
            log.write(
                "register",
                part,
                attempt=attempt,
                payload_bytes=payload_bytes,
                wire_bytes=wire_bytes,
                measured_s=measured_s,
                outcome=outcome,
            )
            measured_s = 0.0
    _write_acknowledged(stored, log, attempt)
    return stored


def _write_acknowledged(stored: StoredModel, log: TransferLog, attempt: int) -> None:
    """The row of the store's answer."""
    num_bytes = acknowledgement_bytes(stored)
    log.write(
        "acknowledge",
        "stored",
        attempt=attempt,
        payload_bytes=num_bytes,
        wire_bytes=acknowledged_bytes(num_bytes),
    )


class ModelUpload:
    """Sends one upload, over as many streams, and processes, as it takes.

    The cache notes that an upload has begun and how much of it has ledger rows, so that the
    process after a killed one neither sends nor counts those bytes again.
    """

    def __init__(
        self, plan: UploadPlan, cache: PartCache, *, link: Link, log: TransferLog, clock: Clock
    ) -> None:
        self._plan = plan
        self._cache = cache
        self._link = link
        self._log = log
        self._clock = clock
        self._attempts = count()
        self._offset = 0
        noted = cache.sent_bytes(plan.model_id)
        self._begun, self._recorded_bytes = noted is not None, noted or 0
        self._first = True

    def run(self, retries: Retries) -> StoredModel:
        """Until it is stored; where the store had damaged bytes, the whole is sent once more."""
        what = lambda: f"push of {self._plan.model_id}: not stored"  # noqa: E731
        try:
            stored = retries.run(what, self._send_once)
        except PayloadError:
            if not self._offset:
                raise
            stored = retries.run(what, self._send_once)
        self._cache.note_sent(self._plan.model_id, None)
        return stored

    def _send_once(self) -> StoredModel:
        state = self._link.received(self._plan)
        if self._begun and state.stored is not None:
            # Stored, but the answer never came back.
            self._write_lost(self._plan.num_bytes)
            _write_acknowledged(state.stored, self._log, next(self._attempts))
            return state.stored
        if self._first:
            self._write_lost(state.num_bytes)
            self._first = False
        self._offset = state.num_bytes
        if not self._begun:
            self._begun = True
            self._note(self._recorded_bytes)
        sent = 0

        def send(progress: Progress) -> StoredModel:
            def counted(part: Part, payload_bytes: int, wire_bytes: int) -> None:
                nonlocal sent
                sent += payload_bytes
                progress(part, payload_bytes, wire_bytes)

            return self._link.send(self._plan, self._offset, counted)

        try:
            return _send_logged(
                send, log=self._log, clock=self._clock, attempt=next(self._attempts)
            )
        finally:
            self._note(self._offset + sent)

    def _write_lost(self, received_bytes: int) -> None:
        """Rows for what arrived of an earlier process that was killed before it wrote its own."""
        if not self._begun or not self._first or received_bytes <= self._recorded_bytes:
            return
        for part, (start, end) in self._plan.spans(self._recorded_bytes, received_bytes).items():
            self._log.write_lost("register", part, end - start)
        self._note(received_bytes)
        next(self._attempts)

    def _note(self, recorded_bytes: int) -> None:
        self._recorded_bytes = recorded_bytes
        self._cache.note_sent(self._plan.model_id, recorded_bytes)
