"""A finished model ready to go up, and the link that takes it up from where it broke."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Final, Protocol, runtime_checkable

from graft.wire.payload.encoding import model_id
from graft.wire.payload.parts import split_payload
from graft.wire.transfer.link import CHUNK_BYTES, Link, Part, Progress, StoredModel, push_plan

RETRY_AFTER: Final = "retry-after-s"  # the trailing metadata that tells a device to wait


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadPlan:
    """A model's id and lengths, and the forms that ``push_plan`` sends, as files."""

    model: StoredModel
    architecture: str
    forms: Mapping[Part, BinaryIO]

    @property
    def plan(self) -> dict[Part, int]:
        return push_plan(self.model)

    @property
    def num_bytes(self) -> int:
        return sum(self.plan.values())

    def spans(self, start: int, end: int) -> dict[Part, tuple[int, int]]:
        """Which stretch of each form lies between two places of the whole."""
        spans: dict[Part, tuple[int, int]] = {}
        at = 0
        for part, num_bytes in self.plan.items():
            first, last = max(start - at, 0), min(end - at, num_bytes)
            if first < last:
                spans[part] = (first, last)
            at += num_bytes
        return spans

    def chunks(self, offset: int) -> Iterator[tuple[Part, bytes]]:
        """The parcel from a place on, in pieces of at most a chunk, each of one form."""
        for part, (first, last) in self.spans(offset, self.num_bytes).items():
            file = self.forms[part]
            for start in range(first, last, CHUNK_BYTES):
                file.seek(start)
                yield part, file.read(min(CHUNK_BYTES, last - start))


def plan_upload(payload: bytes, architecture: str) -> UploadPlan:
    """The parcel of a payload in memory."""
    base, residual = split_payload(payload)
    return UploadPlan(
        model=StoredModel(
            model_id=model_id(payload),
            payload_bytes=len(payload),
            base_bytes=len(base),
            residual_bytes=len(residual),
        ),
        architecture=architecture,
        forms={"base": BytesIO(base), "residual": BytesIO(residual), "exact": BytesIO(payload)},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """How many bytes of a parcel the store holds, and the model if it holds that already."""

    num_bytes: int
    stored: StoredModel | None


@runtime_checkable
class UploadLink(Link, Protocol):
    """A link whose pushes go on where they broke."""

    def received(self, upload_plan: UploadPlan) -> Received:
        """What the store holds of this parcel from this device; raises as ``write``."""
        ...

    def send(self, upload_plan: UploadPlan, offset: int, progress: Progress) -> StoredModel:
        """Send the parcel from byte ``offset`` on; raises as ``write``."""
        ...
