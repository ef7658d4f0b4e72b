"""A device's way to the model store: cached, verified, resumed, and metered on every attempt.

A card is verified before the first byte is asked for. Where the cache is a folder, parts are
received there, and large models joined, split and mapped there, a block at a time.
"""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import count

from graft.core.ports import Clock
from graft.core.records import FloatArray, LedgerEntry, ModelCard, Parameters, Phase, Precision
from graft.errors import PayloadChangedError, PayloadError
from graft.wire.payload.encoding import Shapes, decode_payload, encode_payload, model_id
from graft.wire.payload.model_files import ModelFiles
from graft.wire.payload.parts import decode_base, join_parts
from graft.wire.payload.parts_file import split_file
from graft.wire.payload.payload_file import fits_in_memory, write_payload
from graft.wire.payload.regions import open_work
from graft.wire.transfer.cache import FolderCache, PartCache
from graft.wire.transfer.download import PROGRESSIVE, Downloads, announced_bytes, comes_whole
from graft.wire.transfer.link import Link, Part, StoredModel
from graft.wire.transfer.partial_download import MemoryPartial
from graft.wire.transfer.retries import DEFAULT_ATTEMPTS, Retries
from graft.wire.transfer.transfer_log import TransferLabel, TransferLog
from graft.wire.transfer.upload import ModelUpload, write_once
from graft.wire.transfer.upload_plan import UploadLink, UploadPlan, plan_upload

__all__ = ["DEFAULT_ATTEMPTS", "DeviceTransport", "TransferLabel"]


class DeviceTransport:
    """``WeightTransport`` over any ``Link``.

    ``verify(card)`` raises PayloadChangedError for a card that the server did not sign.
    ``shapes_of(architecture)`` gives the shapes a named architecture must have and raises
    ArchitectureError for a stranger. ``record`` gets one entry a transfer attempt. A broken
    stream is resumed where it stopped, at most ``max_attempts`` streams a transfer;
    ``wait_before_retry`` gets the attempts made so far, ``wait_out`` the seconds that the store
    told this device to wait; both may sleep.
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
        wait_out: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._link = link
        self._cache = cache
        self._verify = verify
        self._shapes_of = shapes_of
        self._rows = TransferLog(label, record, link.wire_source)
        self._clock = clock
        self._retries = Retries(
            max_attempts=max_attempts, wait_before_retry=wait_before_retry, wait_out=wait_out
        )
        self._downloads = Downloads(link, self._rows, clock, self._retries)

    def fetch(self, card: ModelCard, precision: Precision) -> Parameters:
        """The model's parameters; "base" is the approximation even where the rest is held.

        So what a probe sees never depends on the cache. Arrays of a large model may be private
        views of a file. What does not check is forgotten, and fetched anew once where some of it
        lay in the folder before. Raises as ``WeightTransport.fetch``.
        """
        self._verify(card)  # outside the try: a forged card may not empty the cache either
        shapes = self._shapes_of(card.architecture)
        for last in (False, True):
            files: ModelFiles | None = None
            try:
                if isinstance(self._cache, FolderCache):
                    files = ModelFiles(card, shapes, self._cache, self._downloads)
                    architecture, parameters = (
                        files.base() if precision == "base" else files.exact()
                    )
                else:
                    architecture, parameters = self._decode(card, precision, shapes)
                if architecture != card.architecture:
                    raise PayloadChangedError(
                        f"model {card.model_id}: is a {architecture}, "
                        f"its card says {card.architecture}"
                    )
                return parameters
            except PayloadError:
                self._cache.forget(card.model_id)
                if last or files is None or not files.used_before:
                    raise
        raise AssertionError("the last time returns or raises")

    def push(self, architecture: str, parameters: Parameters) -> tuple[str, int, int, int]:
        """Send a finished model up; returns (model id, exact, base and residual bytes).

        Raises PayloadError where it is refused, TransportError after the last attempt.
        """
        if isinstance(self._cache, FolderCache) and isinstance(self._link, UploadLink):
            return self._push_files(self._cache, self._link, architecture, parameters)
        payload = encode_payload(architecture, parameters)
        attempts = count()
        stored = self._retries.run(
            lambda: "push: not stored",
            lambda: write_once(
                lambda progress: self._link.write(payload, architecture, progress),
                rows=self._rows,
                clock=self._clock,
                attempt=next(attempts),
            ),
        )
        return _pushed(stored, model_id(payload), len(payload))

    def _push_files(
        self, cache: FolderCache, link: UploadLink, architecture: str, parameters: Parameters
    ) -> tuple[str, int, int, int]:
        shapes = {name: parameters[name].shape for name in parameters}
        with ExitStack() as files:
            if fits_in_memory(shapes):
                upload_plan = plan_upload(encode_payload(architecture, parameters), architecture)
            else:
                payload, base, residual = (
                    files.enter_context(open_work(cache.folder)) for _ in range(3)
                )
                facts = write_payload(architecture, parameters, payload)
                split_file(facts, payload, base, residual, cache.folder)
                upload_plan = UploadPlan(
                    model=StoredModel(
                        model_id=facts.model_id,
                        payload_bytes=facts.num_bytes,
                        base_bytes=base.tell(),
                        residual_bytes=residual.tell(),
                    ),
                    architecture=architecture,
                    forms={"exact": payload, "base": base, "residual": residual},
                )
            upload = ModelUpload(upload_plan, cache, link=link, rows=self._rows, clock=self._clock)
            model = upload_plan.model
            return _pushed(upload.run(self._retries), model.model_id, model.payload_bytes)

    def _decode(
        self, card: ModelCard, precision: Precision, shapes: Shapes
    ) -> tuple[str, dict[str, FloatArray]]:
        if precision == "base":
            return decode_base(self._part(card, "base", "probe"), shapes)
        return decode_payload(self._exact_payload(card, shapes), shapes, card.model_id)

    def _exact_payload(self, card: ModelCard, shapes: Shapes) -> bytes:
        """The payload by whichever way costs fewer bytes from here."""
        if comes_whole(card, lambda part: self._cache.get(card.model_id, part) is not None):
            return self._part(card, "exact", "ship")
        base, residual = (self._part(card, part, "ship") for part in PROGRESSIVE)
        return join_parts(base, residual, shapes)

    def _part(self, card: ModelCard, part: Part, phase: Phase) -> bytes:
        """One part, from the cache or over the link, of exactly the announced length."""
        announced = announced_bytes(card, part)
        held = self._cache.get(card.model_id, part)
        if held is not None and len(held) == announced:
            self._downloads.write_cached(phase, part)
            return held
        partial = MemoryPartial()
        self._downloads.bring(card, part, phase, partial)
        data = partial.content()
        self._cache.put(card.model_id, part, data)
        return data


def _pushed(stored: StoredModel, name: str, num_bytes: int) -> tuple[str, int, int, int]:
    if stored.model_id != name:
        raise PayloadChangedError(f"store answered {stored.model_id}, not the model's id")
    return name, num_bytes, stored.base_bytes, stored.residual_bytes
