"""A model coming down: its parts, continued from what the cache has, and a row an attempt."""

from contextlib import ExitStack
from itertools import count
from typing import Final

from graft.core.payload import MAX_PAYLOAD_BYTES, check_payload, load_tensors
from graft.core.records import ModelCard, Outcome, Phase, Precision
from graft.core.tensor_types import Shapes, StoredArray
from graft.errors import PayloadChangedError, PayloadLimitError, PayloadTruncatedError
from graft.wire.payload.blocks import PartFile, open_work, work_folder
from graft.wire.payload.parts import join_files, read_base
from graft.wire.transfer.attempts import Transfers
from graft.wire.transfer.link import Part
from graft.wire.transfer.partial_download import PartialDownload
from graft.wire.transfer.transfer_log import outcome_of

_TWO_PARTS: Final[tuple[Part, Part]] = ("base", "residual")


class ModelDownload:
    """One attempt to read one model through a cache.

    ``used_cache``: whether any of its bytes were received before this attempt.
    """

    def __init__(self, card: ModelCard, shapes: Shapes, transfers: Transfers) -> None:
        self._card = card
        self._shapes = shapes
        self._transfers = transfers
        self._folder = work_folder(transfers.cache.folder, shapes)
        self.used_cache = False

    def read(self, precision: Precision) -> tuple[str, dict[str, StoredArray]]:
        """The architecture's name and the parameters; raises as ``WeightTransport.fetch``."""
        with ExitStack() as files:
            first, *others = self._parts(precision, files)
            if precision == "base":
                return read_base(first, self._folder, self._shapes)
            if not others:
                file, facts = first.file, check_payload(first.file, first.num_bytes, self._shapes)
            else:
                file = files.enter_context(open_work(self._folder))
                facts = join_files(first, others[0], file, self._folder, self._shapes)
            if facts.model_id != self._card.model_id:
                raise PayloadChangedError(
                    f"payload hashes to {facts.model_id}, wanted {self._card.model_id}"
                )
            mapped = self._folder is not None
            return facts.architecture, load_tensors(
                file, facts.shapes, facts.data_at, mapped=mapped
            )

    def receive(self, precision: Precision) -> None:
        """Bring what ``read`` brings, without reading it."""
        with ExitStack() as files:
            self._parts(precision, files)

    def read_backbone(self) -> dict[str, StoredArray]:
        """A backbone's tensors, charged to its own phase; raises as ``WeightTransport.fetch``."""
        with ExitStack() as files:
            whole = self._part("exact", "backbone", files)
            facts = check_payload(whole.file, whole.num_bytes, self._shapes)
            if facts.model_id != self._card.model_id:
                raise PayloadChangedError(
                    f"backbone hashes to {facts.model_id}, wanted {self._card.model_id}"
                )
            mapped = self._folder is not None and hasattr(whole.file, "fileno")
            return load_tensors(whole.file, facts.shapes, facts.data_at, mapped=mapped)

    def _parts(self, precision: Precision, files: ExitStack) -> list[PartFile]:
        """The base, the exact payload, or base and residual."""
        if precision == "base":
            return [self._part("base", "probe", files)]
        parts: tuple[Part, ...] = ("exact",) if self._comes_whole() else _TWO_PARTS
        return [self._part(part, "ship", files) for part in parts]

    def _comes_whole(self) -> bool:
        """Whether the exact payload costs fewer bytes than the parts that are missing."""
        card, holds = self._card, self._transfers.cache.holds
        missing = [part for part in _TWO_PARTS if not holds(card.model_id, part)]
        needed = sum(self._announced_bytes(part) for part in missing)
        return card.payload_bytes < needed or holds(card.model_id, "exact")

    def _part(self, part: Part, phase: Phase, files: ExitStack) -> PartFile:
        """One part, from the cache or over the link, of exactly the announced length."""
        announced, cache = self._announced_bytes(part), self._transfers.cache
        cached = cache.open(self._card.model_id, part)
        if cached is not None:
            files.enter_context(cached.file)
            if cached.num_bytes == announced:
                self.used_cache = True
                self._transfers.log.write(phase, part, cached=True)
                return cached
        partial = cache.start_download(self._card.model_id, part, announced)
        self.used_cache |= partial.num_bytes > 0
        try:
            self._bring(part, phase, partial)
            received = partial.keep()
        finally:
            partial.close()
        files.enter_context(received.file)
        return received

    def _bring(self, part: Part, phase: Phase, partial: PartialDownload) -> None:
        """Bring ``partial`` to the announced length, each stream continuing a broken one.

        Bytes of an earlier process that was killed get a row of their own first; what was
        received before an error stays in ``partial``.
        """
        announced, attempts = self._announced_bytes(part), count()
        if partial.unrecorded_bytes:
            self._transfers.log.write_lost(phase, part, partial.unrecorded_bytes)
            partial.mark_recorded()
            next(attempts)
        if partial.num_bytes >= announced:
            self._check_length(part, partial.num_bytes)
            return
        rest = announced - partial.num_bytes
        self._transfers.limit.take(f"{part} of {self._card.model_id}", rest)
        self._transfers.retries.run(
            lambda: f"{part} of {self._card.model_id}: {partial.num_bytes} of {announced} bytes",
            lambda: self._stream_once(part, phase, partial, next(attempts)),
        )

    def _stream_once(
        self, part: Part, phase: Phase, partial: PartialDownload, attempt: int
    ) -> None:
        """Append what one stream brings, and write its row whatever happens."""
        announced, clock = self._announced_bytes(part), self._transfers.clock
        offset, start_s, wire_bytes = partial.num_bytes, clock(), 0
        outcome: Outcome = "failed"
        try:
            for chunk in self._transfers.link.read(self._card.model_id, part, offset):
                partial.append(chunk.data)
                wire_bytes += chunk.wire_bytes
                if partial.num_bytes > announced:
                    break
            self._check_length(part, partial.num_bytes)
            outcome = "ok"
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            self._transfers.log.write(
                phase,
                part,
                attempt=attempt,
                payload_bytes=partial.num_bytes - offset,
                wire_bytes=wire_bytes,
                measured_s=clock() - start_s,
                outcome=outcome,
            )
            partial.mark_recorded()

    def _announced_bytes(self, part: Part) -> int:
        """A part's length by the card; raises PayloadLimitError beyond the limit."""
        name = "payload_bytes" if part == "exact" else f"{part}_bytes"
        announced: int = getattr(self._card, name)
        if announced > MAX_PAYLOAD_BYTES:
            raise PayloadLimitError(
                f"{part} of {self._card.model_id}: card announces {announced} bytes"
            )
        return announced

    def _check_length(self, part: Part, got: int) -> None:
        wanted = self._announced_bytes(part)
        if got != wanted:
            kind = PayloadTruncatedError if got < wanted else PayloadChangedError
            raise kind(f"{part} of {self._card.model_id}: got {got} bytes, wanted {wanted}")
