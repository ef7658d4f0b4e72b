"""A part coming down: on from what is held already, metered on every attempt."""

from collections.abc import Callable
from itertools import count
from typing import Final

from graft.core.ports import Clock
from graft.core.records import ModelCard, Outcome, Phase
from graft.errors import PayloadChangedError, PayloadLimitError, PayloadTruncatedError
from graft.wire.payload.encoding import MAX_PAYLOAD_BYTES
from graft.wire.transfer.link import Link, Part
from graft.wire.transfer.partial_download import PartialDownload
from graft.wire.transfer.retries import Retries
from graft.wire.transfer.transfer_log import TransferLog, outcome_of

PROGRESSIVE: Final[tuple[Part, Part]] = ("base", "residual")


class Downloads:
    """Brings parts over a link into arrivals, and writes their rows."""

    def __init__(self, link: Link, rows: TransferLog, clock: Clock, retries: Retries) -> None:
        self._link = link
        self._rows = rows
        self._clock = clock
        self._retries = retries

    def write_cached(self, phase: Phase, part: Part) -> None:
        """The row of a part that need not come."""
        self._rows.write(phase, part, cached=True)

    def bring(self, card: ModelCard, part: Part, phase: Phase, partial: PartialDownload) -> None:
        """Bring ``partial`` to the announced length, each stream going on where one broke.

        Bytes of an earlier process that was killed get a row of their own first. Raises as
        ``WeightTransport.fetch``; what came by then stays in ``partial``.
        """
        announced, attempts = announced_bytes(card, part), count()
        if partial.unrecorded_bytes:
            self._rows.write_lost(phase, part, partial.unrecorded_bytes)
            partial.mark_recorded()
            next(attempts)
        if partial.num_bytes >= announced:
            _check_length(card, part, partial.num_bytes)
            return
        self._retries.run(
            lambda: f"{part} of {card.model_id}: {partial.num_bytes} of {announced} bytes",
            lambda: self._stream_once(card, part, phase, partial, next(attempts)),
        )

    def _stream_once(
        self, card: ModelCard, part: Part, phase: Phase, partial: PartialDownload, attempt: int
    ) -> None:
        """Append what one stream brings, and write its row whatever happens."""
        announced = announced_bytes(card, part)
        offset, start_s, wire_bytes = partial.num_bytes, self._clock(), 0
        outcome: Outcome = "failed"
        try:
            for piece in self._link.read(card.model_id, part, offset):
                partial.append(piece.data)
                wire_bytes += piece.wire_bytes
                if partial.num_bytes > announced:
                    break
            _check_length(card, part, partial.num_bytes)
            outcome = "ok"
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            self._rows.write(
                phase,
                part,
                attempt=attempt,
                payload_bytes=partial.num_bytes - offset,
                wire_bytes=wire_bytes,
                measured_s=self._clock() - start_s,
                outcome=outcome,
            )
            partial.mark_recorded()


def announced_bytes(card: ModelCard, part: Part) -> int:
    """A part's length as the card says it; raises PayloadLimitError beyond the limit."""
    lengths = {
        "base": card.base_bytes,
        "residual": card.residual_bytes,
        "exact": card.payload_bytes,
    }
    if lengths[part] > MAX_PAYLOAD_BYTES:
        raise PayloadLimitError(f"{part} of {card.model_id}: card announces {lengths[part]} bytes")
    return lengths[part]


def comes_whole(card: ModelCard, holds: Callable[[Part], bool]) -> bool:
    """Whether the exact payload is the cheaper way from here, given what is held."""
    held = {part for part in PROGRESSIVE if holds(part)}
    missing = sum(announced_bytes(card, part) for part in PROGRESSIVE if part not in held)
    return card.payload_bytes < missing or holds("exact")


def _check_length(card: ModelCard, part: Part, got: int) -> None:
    wanted = announced_bytes(card, part)
    if got != wanted:
        kind = PayloadTruncatedError if got < wanted else PayloadChangedError
        raise kind(f"{part} of {card.model_id}: got {got} bytes, wanted {wanted}")
