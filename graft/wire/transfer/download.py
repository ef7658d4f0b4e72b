"""A model coming down: its parts, continued from what the cache has, and a row an attempt."""

from contextlib import ExitStack
from itertools import count
from typing import Final

from graft.core.ports import Clock
from graft.core.records import FloatArray, ModelCard, Outcome, Phase, Precision
from graft.errors import PayloadChangedError, PayloadLimitError, PayloadTruncatedError
from graft.wire.payload.blocks import PartFile, open_work, work_folder
from graft.wire.payload.encoding import MAX_PAYLOAD_BYTES, Shapes, check_payload, load_tensors
from graft.wire.payload.parts import join_files, read_base
from graft.wire.transfer.cache import PartCache
from graft.wire.transfer.link import Link, Part
from graft.wire.transfer.partial_download import PartialDownload
from graft.wire.transfer.retries import Retries
from graft.wire.transfer.transfer_log import TransferLog, outcome_of

_TWO_PARTS: Final[tuple[Part, Part]] = ("base", "residual")


class Downloads:
    """Brings parts over a link into partial downloads, and writes their rows."""

    def __init__(self, link: Link, log: TransferLog, clock: Clock, retries: Retries) -> None:
        self._link = link
        self._log = log
        self._clock = clock
        self._retries = retries

    def write_cached(self, phase: Phase, part: Part) -> None:
        """The row of a part that is cached."""
        self._log.write(phase, part, cached=True)

    def bring(self, card: ModelCard, part: Part, phase: Phase, partial: PartialDownload) -> None:
        """Bring ``partial`` to the announced length, each stream continuing a broken one.

        Bytes of an earlier process that was killed get a row of their own first. Raises as
        ``WeightTransport.fetch``; what was received by then stays in ``partial``.
        """
        announced, attempts = _announced_bytes(card, part), count()
        if partial.unrecorded_bytes:
            self._log.write_lost(phase, part, partial.unrecorded_bytes)
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
        announced = _announced_bytes(card, part)
        offset, start_s, wire_bytes = partial.num_bytes, self._clock(), 0
        outcome: Outcome = "failed"
        try:
            for chunk in self._link.read(card.model_id, part, offset):
                partial.append(chunk.data)
                wire_bytes += chunk.wire_bytes
                if partial.num_bytes > announced:
                    break
            _check_length(card, part, partial.num_bytes)
            outcome = "ok"
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            self._log.write(
                phase,
                part,
                attempt=attempt,
                payload_bytes=partial.num_bytes - offset,
                wire_bytes=wire_bytes,
                measured_s=self._clock() - start_s,
                outcome=outcome,
            )
            partial.mark_recorded()


class ModelDownload:
    """One attempt to read one model through a cache.

    ``used_cache``: whether any of its bytes were received before this attempt.
    """

    def __init__(
        self, card: ModelCard, shapes: Shapes, cache: PartCache, downloads: Downloads
    ) -> None:
        self._card = card
        self._shapes = shapes
        self._cache = cache
        self._downloads = downloads
        self._folder = work_folder(cache.folder, shapes)
        self.used_cache = False

    def read(self, precision: Precision) -> tuple[str, dict[str, FloatArray]]:
        """The architecture's name and the parameters; raises as ``WeightTransport.fetch``."""
        with ExitStack() as files:
            if precision == "base":
                base = self._part("base", "probe", files)
                return read_base(base, self._folder, self._shapes)
            if self._comes_whole():
                whole = self._part("exact", "ship", files)
                file, facts = whole.file, check_payload(whole.file, whole.num_bytes, self._shapes)
            else:
                base, residual = (self._part(part, "ship", files) for part in _TWO_PARTS)
                file = files.enter_context(open_work(self._folder))
                facts = join_files(base, residual, file, self._folder, self._shapes)
            if facts.model_id != self._card.model_id:
                raise PayloadChangedError(
                    f"payload hashes to {facts.model_id}, wanted {self._card.model_id}"
                )
            mapped = self._folder is not None
            return facts.architecture, load_tensors(
                file, facts.shapes, facts.data_at, mapped=mapped
            )

    def _comes_whole(self) -> bool:
        """Whether the exact payload costs fewer bytes than the parts that are missing."""
        card, holds = self._card, self._cache.holds
        missing = [part for part in _TWO_PARTS if not holds(card.model_id, part)]
        needed = sum(_announced_bytes(card, part) for part in missing)
        return card.payload_bytes < needed or holds(card.model_id, "exact")

    def _part(self, part: Part, phase: Phase, files: ExitStack) -> PartFile:
        """One part, from the cache or over the link, of exactly the announced length."""
        announced = _announced_bytes(self._card, part)
        cached = self._cache.open(self._card.model_id, part)
        if cached is not None:
            files.enter_context(cached.file)
            if cached.num_bytes == announced:
                self.used_cache = True
                self._downloads.write_cached(phase, part)
                return cached
        partial = self._cache.start_download(self._card.model_id, part, announced)
        self.used_cache |= partial.num_bytes > 0
        try:
            self._downloads.bring(self._card, part, phase, partial)
            received = partial.keep()
        finally:
            partial.close()
        files.enter_context(received.file)
        return received


def _announced_bytes(card: ModelCard, part: Part) -> int:
    """A part's length by its card; raises PayloadLimitError beyond the limit."""
    lengths = {
        "base": card.base_bytes,
        "residual": card.residual_bytes,
        "exact": card.payload_bytes,
    }
    if lengths[part] > MAX_PAYLOAD_BYTES:
        raise PayloadLimitError(f"{part} of {card.model_id}: card announces {lengths[part]} bytes")
    return lengths[part]


def _check_length(card: ModelCard, part: Part, got: int) -> None:
    wanted = _announced_bytes(card, part)
    if got != wanted:
        kind = PayloadTruncatedError if got < wanted else PayloadChangedError
        raise kind(f"{part} of {card.model_id}: got {got} bytes, wanted {wanted}")
