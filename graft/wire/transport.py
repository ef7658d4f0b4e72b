"""A device's way to the model store: cached, verified, resumed, and metered on every attempt.

A card is verified before the first byte is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from graft.carriage import acknowledged_bytes
from graft.errors import (
    ModelMissingError,
    PayloadChangedError,
    PayloadError,
    PayloadLimitError,
    PayloadTruncatedError,
    TransportError,
)
from graft.ledger import DEPOT
from graft.ports import Clock
from graft.values import LedgerEntry, ModelCard, Outcome, Parameters, Phase, Precision
from graft.wire.cache import PartCache
from graft.wire.link import Link, Part, StoredModel, acknowledgement_bytes
from graft.wire.parts import decode_base, join_parts
from graft.wire.payload import (
    MAX_PAYLOAD_BYTES,
    Shapes,
    decode_payload,
    encode_payload,
    model_id,
)

DEFAULT_ATTEMPTS: Final = 5

_PROGRESSIVE: Final[tuple[Part, Part]] = ("base", "residual")


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferLabel:
    """Which ledger columns this device's transfers are charged to."""

    run: str
    round_index: int
    method: str
    domain_id: str


class DeviceTransport:
    """``WeightTransport`` over any ``Link``.

    ``verify(card)`` raises PayloadChangedError for a card that the server did not sign.
    ``shapes_of(architecture)`` gives the shapes a named architecture must have and raises
    ArchitectureError for a stranger. ``record`` gets one entry a transfer attempt. A broken
    stream is resumed where it stopped, at most ``max_attempts`` streams a transfer;
    ``wait_before_retry`` gets the attempts made so far and may sleep.
    """

    def __init__(
        self,
        *,
        link: Link,
        cache: PartCache,
        verify: Callable[[ModelCard], None],
        shapes_of: Callable[[str], Shapes],
        label: TransferLabel,
        record: Callable[[LedgerEntry], None],
        clock: Clock,
        max_attempts: int = DEFAULT_ATTEMPTS,
        wait_before_retry: Callable[[int], None] = lambda attempts: None,
    ) -> None:
        self._link = link
        self._cache = cache
        self._verify = verify
        self._shapes_of = shapes_of
        self._label = label
        self._record = record
        self._clock = clock
        self._max_attempts = max_attempts
        self._wait_before_retry = wait_before_retry

    def fetch(self, card: ModelCard, precision: Precision) -> Parameters:
        """The model's parameters; "base" is the approximation even where the rest is held.

        So what a probe sees never depends on the cache. Raises as ``WeightTransport.fetch``.
        """
        self._verify(card)  # outside the try: a forged card may not empty the cache either
        shapes = self._shapes_of(card.architecture)
        try:
            if precision == "base":
                architecture, parameters = decode_base(self._part(card, "base", "probe"), shapes)
            else:
                payload = self._exact_payload(card, shapes)
                architecture, parameters = decode_payload(payload, shapes, card.model_id)
            if architecture != card.architecture:
                raise PayloadChangedError(
                    f"model {card.model_id}: is a {architecture}, its card says {card.architecture}"
                )
        except PayloadError:
            self._cache.forget(card.model_id)
            raise
        return parameters

    def push(self, architecture: str, parameters: Parameters) -> tuple[str, int, int, int]:
        """Send a finished model up; returns (model id, exact, base and residual bytes).

        Raises PayloadError where it is refused, TransportError after the last attempt.
        """
        payload = encode_payload(architecture, parameters)
        stored = self._upload(payload, architecture)
        if stored.model_id != model_id(payload):
            raise PayloadChangedError(f"store answered {stored.model_id}, not the model's id")
        return stored.model_id, len(payload), stored.base_bytes, stored.residual_bytes

    def _exact_payload(self, card: ModelCard, shapes: Shapes) -> bytes:
        """The payload by whichever way costs fewer bytes from here."""
        held = {p for p in _PROGRESSIVE if self._cache.get(card.model_id, p) is not None}
        missing = sum(_announced(card, part) for part in _PROGRESSIVE if part not in held)
        if card.payload_bytes < missing or self._cache.get(card.model_id, "exact") is not None:
            return self._part(card, "exact", "ship")
        base, residual = (self._part(card, part, "ship") for part in _PROGRESSIVE)
        return join_parts(base, residual, shapes)

    def _part(self, card: ModelCard, part: Part, phase: Phase) -> bytes:
        """One part, from the cache or over the link, of exactly the announced length."""
        announced = _announced(card, part)
        if announced > MAX_PAYLOAD_BYTES:
            raise PayloadLimitError(f"{part} of {card.model_id}: card announces {announced} bytes")
        held = self._cache.get(card.model_id, part)
        if held is not None and len(held) == announced:
            self._write_row(phase, part, cached=True)
            return held
        data = self._download(card, part, phase)
        self._cache.put(card.model_id, part, data)
        return data

    def _download(self, card: ModelCard, part: Part, phase: Phase) -> bytes:
        """One part over the link, each new stream going on where the last one broke."""
        received = bytearray()
        broken: TransportError | None = None
        for attempt in range(self._max_attempts):
            if attempt:
                self._wait_before_retry(attempt)
            try:
                self._stream_once(card, part, phase, attempt, received)
                return bytes(received)
            except ModelMissingError:
                raise
            except TransportError as error:
                broken = error
        raise TransportError(
            f"{part} of {card.model_id}: {len(received)} of {_announced(card, part)} bytes after "
            f"{self._max_attempts} attempts; last: {broken}"
        ) from broken

    def _stream_once(
        self, card: ModelCard, part: Part, phase: Phase, attempt: int, received: bytearray
    ) -> None:
        """Append what one stream brings to ``received``, and write its row whatever happens."""
        announced, offset, start_s = _announced(card, part), len(received), self._clock()
        wire_bytes = 0
        outcome: Outcome = "failed"
        try:
            for piece in self._link.read(card.model_id, part, offset):
                received += piece.data
                wire_bytes += piece.wire_bytes
                if len(received) > announced:
                    break
            if len(received) != announced:
                kind = PayloadTruncatedError if len(received) < announced else PayloadChangedError
                raise kind(
                    f"{part} of {card.model_id}: got {len(received)} bytes, wanted {announced}"
                )
            outcome = "ok"
        except BaseException as error:
            outcome = _outcome_of(error)
            raise
        finally:
            self._write_row(
                phase,
                part,
                attempt=attempt,
                payload_bytes=len(received) - offset,
                wire_bytes=wire_bytes,
                measured_s=self._clock() - start_s,
                outcome=outcome,
            )

    def _upload(self, payload: bytes, architecture: str) -> StoredModel:
        broken: TransportError | None = None
        for attempt in range(self._max_attempts):
            if attempt:
                self._wait_before_retry(attempt)
            try:
                return self._write_once(payload, architecture, attempt)
            except TransportError as error:
                broken = error
        raise TransportError(
            f"push: not stored after {self._max_attempts} attempts; last: {broken}"
        ) from broken

    def _write_once(self, payload: bytes, architecture: str, attempt: int) -> StoredModel:
        """One try to push; a row for every part of which bytes were sent, whatever happens."""
        sent: dict[Part, tuple[int, int]] = {}
        start_s = self._clock()

        def progress(part: Part, payload_bytes: int, wire_bytes: int) -> None:
            before = sent.get(part, (0, 0))
            sent[part] = (before[0] + payload_bytes, before[1] + wire_bytes)

        outcome: Outcome = "ok"
        stored: StoredModel | None = None
        try:
            stored = self._link.write(payload, architecture, progress)
            return stored
        except BaseException as error:
            outcome = _outcome_of(error)
            raise
        finally:
            # The parts share one stream, so the time stands once, on its first row.
            measured_s = self._clock() - start_s
            # A copy: a link's own thread may still count while a failed stream winds down.
            for part, (payload_bytes, wire_bytes) in list(sent.items()):
                self._write_row(
                    "register",
                    part,
                    attempt=attempt,
                    payload_bytes=payload_bytes,
                    wire_bytes=wire_bytes,
                    measured_s=measured_s,
                    outcome=outcome,
                )
                measured_s = 0.0
            if stored is not None:
                num_bytes = acknowledgement_bytes(stored)
                self._write_row(
                    "acknowledge",
                    "stored",
                    attempt=attempt,
                    payload_bytes=num_bytes,
                    wire_bytes=acknowledged_bytes(num_bytes),
                )

    def _write_row(
        self,
        phase: Phase,
        what: str,
        *,
        attempt: int = 0,
        payload_bytes: int = 0,
        wire_bytes: int = 0,
        measured_s: float = 0.0,
        cached: bool = False,
        outcome: Outcome = "ok",
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
                wire_source=self._link.wire_source,
                measured_s=measured_s,
                cached=cached,
                outcome=outcome,
            )
        )


def _announced(card: ModelCard, part: Part) -> int:
    return {
        "base": card.base_bytes,
        "residual": card.residual_bytes,
        "exact": card.payload_bytes,
    }[part]


def _outcome_of(error: BaseException) -> Outcome:
    """How the ledger names a transfer that ended in ``error``."""
    if isinstance(error, PayloadError | ModelMissingError):
        return "refused"
    return "lost" if isinstance(error, TransportError) else "failed"
