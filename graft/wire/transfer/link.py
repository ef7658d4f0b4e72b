"""The byte level between a device and the model store, and what its messages weigh.

A link moves bytes and counts them; it neither verifies nor caches (``transport`` does).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol

from graft.core.payload import PayloadFacts, write_payload
from graft.core.ports import ModelStore
from graft.core.records import Parameters
from graft.wire.overhead import DepotCalls, data_message_bytes, stream_bytes
from graft.wire.payload.blocks import open_work
from graft.wire.payload.parts import split_file
from graft.wire.stubs import depot_pb2 as pb

Part = Literal["base", "residual", "exact"]
WireSource = Literal["measured", "modelled"]
Progress = Callable[[Part, int, int], None]  # part, payload bytes, wire bytes since last time

RETRY_AFTER: Final = "retry-after-s"  # trailing metadata: how long a device shall wait
CHUNK_BYTES: Final = 256 * 1024
PART_CODES: Final[dict[Part, pb.Part]] = {
    "base": pb.PART_BASE,
    "residual": pb.PART_RESIDUAL,
    "exact": pb.PART_EXACT,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Bytes of a part as they arrived, and what the link carried to bring them."""

    data: bytes
    wire_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredModel:
    """A model's id and the lengths of its three forms, in bytes."""

    model_id: str
    payload_bytes: int
    base_bytes: int
    residual_bytes: int

    def forms(self) -> dict[Part, int]:
        """The forms that an upload sends, with their bytes: two parts, or one if smaller."""
        if self.base_bytes + self.residual_bytes < self.payload_bytes:
            return {"base": self.base_bytes, "residual": self.residual_bytes}
        return {"exact": self.payload_bytes}


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """How many bytes of an upload the store has, and the model if it is stored already."""

    num_bytes: int
    stored: StoredModel | None


class UploadPlan:
    """A finished model as the forms that are sent; it is split when a link first asks for them."""

    def __init__(self, architecture: str, parameters: Parameters, folder: Path | None) -> None:
        self._folder = folder
        self._payload = open_work(folder)
        self._files = [self._payload]
        self.facts: PayloadFacts = write_payload(architecture, parameters, self._payload)

    @property
    def model_id(self) -> str:
        return self.facts.model_id

    @cached_property
    def model(self) -> StoredModel:
        """The id and lengths of all forms."""
        return StoredModel(
            model_id=self.model_id,
            payload_bytes=self.facts.num_bytes,
            base_bytes=self._parts["base"].seek(0, 2),
            residual_bytes=self._parts["residual"].seek(0, 2),
        )

    @property
    def num_bytes(self) -> int:
        """The length of the upload."""
        return sum(self.model.forms().values())

    def payload(self) -> bytes:
        """The exact payload."""
        self._payload.seek(0)
        return self._payload.read()

    def spans(self, start: int, end: int) -> dict[Part, tuple[int, int]]:
        """Which bytes of each form lie between two offsets of the upload."""
        spans: dict[Part, tuple[int, int]] = {}
        at = 0
        for part, num_bytes in self.model.forms().items():
            first, last = max(start - at, 0), min(end - at, num_bytes)
            if first < last:
                spans[part] = (first, last)
            at += num_bytes
        return spans

    def chunks(self, offset: int) -> Iterator[tuple[Part, bytes]]:
        """The upload from ``offset`` on, in pieces of at most a chunk, each of one form."""
        for part, (first, last) in self.spans(offset, self.num_bytes).items():
            file = self._parts[part]
            for start in range(first, last, CHUNK_BYTES):
                file.seek(start)
                yield part, file.read(min(CHUNK_BYTES, last - start))

    def close(self) -> None:
        """Remove the working files."""
        for file in self._files:
            file.close()

    @cached_property
    def _parts(self) -> Mapping[Part, BinaryIO]:
        base, residual = open_work(self._folder), open_work(self._folder)
        self._files += [base, residual]
        split_file(self.facts, self._payload, base, residual, self._folder)
        return {"exact": self._payload, "base": base, "residual": residual}


class Link(Protocol):
    """One way to the model store."""

    @property
    def wire_source(self) -> WireSource:
        """Whether ``wire_bytes`` are counted on a real stream or modelled."""
        ...

    def read(self, model_id: str, part: Part, offset: int) -> Iterator[Chunk]:
        """The part from byte ``offset`` on; raises TransportError where the stream breaks.

        Raises ModelMissingError for an unknown model, PayloadError for damaged stored bytes.
        """
        ...

    def received(self, upload: UploadPlan) -> Received:
        """What the store has of an upload from this device; raises as ``send``."""
        ...

    def send(self, upload: UploadPlan, offset: int, progress: Progress) -> StoredModel:
        """Send an upload from byte ``offset`` on; ``progress`` gets what has been sent.

        Raises PayloadError where the store refuses it, TransportError where it is unreachable.
        """
        ...


class DirectoryLink:
    """A link inside one process, straight to any model store; wire bytes are modelled.

    A simulated transfer weighs what the same transfer over gRPC and TLS does: its own direction,
    without requests and acknowledgements. One device's link, for one request.
    """

    wire_source: WireSource = "modelled"

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._calls = DepotCalls()

    def read(self, model_id: str, part: Part, offset: int) -> Iterator[Chunk]:
        content = self._store.part(model_id, part)
        overhead = self._calls.fetch_bytes()
        for start in range(offset, len(content), CHUNK_BYTES):
            data = content[start : start + CHUNK_BYTES]
            yield Chunk(data=data, wire_bytes=overhead + chunked_bytes(len(data)))
            overhead = 0

    def received(self, upload: UploadPlan) -> Received:
        return Received(num_bytes=0, stored=None)  # a call in one process does not break

    def send(self, upload: UploadPlan, offset: int, progress: Progress) -> StoredModel:
        # The store splits the model anyway: the lengths are its answer.
        model_id = self._store.put(upload.payload(), upload.facts.architecture)
        stored = StoredModel(
            model_id=model_id,
            payload_bytes=upload.facts.num_bytes,
            base_bytes=self._store.num_bytes(model_id, "base"),
            residual_bytes=self._store.num_bytes(model_id, "residual"),
        )
        overhead = self._calls.push_bytes()
        for part, num_bytes in stored.forms().items():
            progress(part, num_bytes, overhead + chunked_bytes(num_bytes))
            overhead = 0
        return stored


def acknowledgement_bytes(model: StoredModel) -> int:
    """Encoded length of the store's answer to a push."""
    stat = pb.ModelStat(
        model_id=model.model_id,
        payload_bytes=model.payload_bytes,
        base_bytes=model.base_bytes,
        residual_bytes=model.residual_bytes,
    )
    return int(stat.ByteSize())


def chunked_bytes(num_bytes: int) -> int:
    """Wire bytes of ``num_bytes`` of a part in chunk messages."""
    whole, rest = divmod(num_bytes, CHUNK_BYTES)
    wire_bytes = whole * stream_bytes(data_message_bytes(CHUNK_BYTES))
    return wire_bytes + (stream_bytes(data_message_bytes(rest)) if rest else 0)
