"""A device's way to the model store: cached, verified, resumed, and logged on every attempt."""

from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

import numpy as np

from graft.core.payload import payload_bytes_of
from graft.core.ports import Clock
from graft.core.records import LedgerEntry, ModelCard, Parameters, Precision
from graft.core.tensor_types import Shapes
from graft.errors import BudgetError, PayloadChangedError, PayloadError
from graft.wire.payload.blocks import work_folder
from graft.wire.transfer.attempts import DEFAULT_ATTEMPTS, ByteLimit, Retries, Transfers
from graft.wire.transfer.cache import PartCache
from graft.wire.transfer.download import ModelDownload
from graft.wire.transfer.link import Link, UploadPlan
from graft.wire.transfer.transfer_log import TransferLabel, TransferLog
from graft.wire.transfer.upload import ModelUpload

__all__ = ["DEFAULT_ATTEMPTS", "DeviceTransport", "TransferLabel"]
_Read = TypeVar("_Read")


class DeviceTransport:
    """``WeightTransport`` over any ``Link``.

    Parameters
    ----------
    link, cache
        The way to the store, and the parts that the device has of it. Large models are worked on
        in files where the cache has a folder.
    verify
        Raises PayloadChangedError for a card that the server did not sign; it is called before
        the first byte is asked for.
    shapes_of
        The shapes that a named architecture has; raises ArchitectureError for an unknown one.
    label, record
        What the ledger rows are charged to, and what gets them: one a transfer attempt.
    clock
        Monotonic seconds.
    max_attempts
        Streams a transfer; a broken one is resumed where it stopped.
    wait_before_retry, wait_out
        Get the attempts made so far, and the seconds that the store requested; both may sleep.
    before_fetch
        Gets a model's architecture, to bring what it needs besides.
    max_down_bytes
        What all fetches together may bring; None: any number.
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
        before_fetch: Callable[[str], None] = lambda architecture: None,
        max_down_bytes: int | None = None,
    ) -> None:
        self._verify = verify
        self._shapes_of = shapes_of
        self._before_fetch = before_fetch
        self._transfers = Transfers(
            link=link,
            cache=cache,
            log=TransferLog(label, record, link.wire_source),
            clock=clock,
            retries=Retries(
                max_attempts=max_attempts, wait_before_retry=wait_before_retry, wait_out=wait_out
            ),
            limit=ByteLimit(left=max_down_bytes),
        )

    def fetch(self, card: ModelCard, precision: Precision) -> Parameters:
        """The model's parameters; "base" is the approximation even where the rest is cached.

        So what a probe sees never depends on the cache. What fails a check is forgotten, and
        fetched again once where some of it was received before. Raises as
        ``WeightTransport.fetch``.
        """

        def read(download: ModelDownload) -> Parameters:
            architecture, parameters = download.read(precision)
            if architecture != card.architecture:
                raise PayloadChangedError(
                    f"model {card.model_id}: is a {architecture}, its card says {card.architecture}"
                )
            return parameters

        return self._download(card, read)

    def receive(self, card: ModelCard, precision: Precision) -> None:
        """What ``fetch`` does but for reading the model, which its caller has."""
        self._download(card, lambda download: download.receive(precision))

    def _download(self, card: ModelCard, read: Callable[[ModelDownload], _Read]) -> _Read:
        self._verify(card)  # outside the try: a forged card must not empty the cache either
        self._before_fetch(card.architecture)
        shapes = self._shapes_of(card.architecture)
        is_last = False
        while True:
            download = ModelDownload(card, shapes, self._transfers)
            try:
                return read(download)
            except PayloadError:
                self._transfers.cache.forget(card.model_id)
                if is_last or not download.used_cache:
                    raise
                is_last = True

    def fetch_backbone(self, name: str, sha256: str, shapes: Shapes) -> Parameters:
        """The tensors of a public backbone, which its hash alone vouches for; raises as ``fetch``.

        What was received stays in the cache, and a broken stream is continued. A limit of bytes
        refuses it, whatever is left: no plan counts a backbone that is shipped.
        """
        if self._transfers.limit.left is not None and not self.holds(sha256):
            raise BudgetError(
                f"backbone {name}: got a limit of bytes down, wanted none, or a backbone that the "
                "device has already"
            )
        card = ModelCard(
            model_id=sha256, domain_id=name, architecture=name, round_index=0,
            payload_bytes=payload_bytes_of(name, shapes), base_bytes=0, residual_bytes=0,
            class_mask_C=np.zeros(0, np.bool_),
        )  # fmt: skip
        try:
            return ModelDownload(card, shapes, self._transfers).read_backbone()
        except PayloadError:
            self._transfers.cache.forget(sha256)
            raise

    def holds(self, model_id: str) -> bool:
        """Whether the device has received this model, or backbone, whole."""
        return self._transfers.cache.holds(model_id, "exact")

    def push(
        self, architecture: str, parameters: Parameters, max_bytes: int | None = None
    ) -> tuple[str, int, int, int]:
        """Send a finished model up; returns (model id, exact, base and residual bytes).

        Raises PayloadError where it is refused, TransportError after the last attempt, BudgetError
        as ``WeightTransport.push``.
        """
        shapes = {name: array.shape for name, array in parameters.items()}
        folder = work_folder(self._transfers.cache.folder, shapes)
        with closing(UploadPlan(architecture, parameters, folder)) as plan:
            if max_bytes is not None:
                what = f"push of {plan.model_id}"
                ByteLimit(left=max_bytes).take(what, plan.num_bytes)
            stored = ModelUpload(plan, self._transfers).run()
            if stored.model_id != plan.model_id:
                raise PayloadChangedError(f"store answered {stored.model_id}, not the model's id")
            return plan.model_id, plan.facts.num_bytes, stored.base_bytes, stored.residual_bytes
