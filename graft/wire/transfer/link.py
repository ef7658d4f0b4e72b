"""The byte level between a device and the model store, and what its messages weigh.

A link moves bytes and counts them; it neither verifies nor remembers (``transport`` does).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from graft.core.ports import ModelStore
from graft.wire.overhead import DepotCalls, data_message_bytes, stream_bytes
from graft.wire.stubs import depot_pb2 as pb

Part = Literal["base", "residual", "exact"]
WireSource = Literal["measured", "modelled"]
Progress = Callable[[Part, int, int], None]  # part, payload bytes, wire bytes since last time

CHUNK_BYTES: Final = 256 * 1024
PART_CODES: Final[dict[Part, pb.Part]] = {
    "base": pb.PART_BASE,
    "residual": pb.PART_RESIDUAL,
    "exact": pb.PART_EXACT,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Bytes of a part as they arrived, and what the link carried to bring them."""

    data: bytes
    wire_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredModel:
    """What the store holds of one model: its id and the lengths of its three forms, in bytes."""

    model_id: str
    payload_bytes: int
    base_bytes: int
    residual_bytes: int


class Link(Protocol):
    """One way to the model store."""

    @property
    def wire_source(self) -> WireSource:
        """Whether ``wire_bytes`` are counted on a real stream or modelled."""
        ...

    def read(self, model_id: str, part: Part, offset: int) -> Iterator[Piece]:
        """The part from byte ``offset`` on; raises TransportError where the stream breaks.

        Raises ModelMissingError for an unknown model, PayloadError for damaged stored bytes.
        """
        ...

    def write(self, payload: bytes, architecture: str, progress: Progress) -> StoredModel:
        """Send a payload up in its smaller form, telling ``progress`` what has been sent.

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

    def read(self, model_id: str, part: Part, offset: int) -> Iterator[Piece]:
        content = self._store.part(model_id, part)
        overhead = self._calls.fetch_bytes()
        for start in range(offset, len(content), CHUNK_BYTES):
            data = content[start : start + CHUNK_BYTES]
            yield Piece(data=data, wire_bytes=overhead + _chunk_bytes(len(data)))
            overhead = 0

    def write(self, payload: bytes, architecture: str, progress: Progress) -> StoredModel:
        model_id = self._store.put(payload, architecture)
        stored = StoredModel(
            model_id=model_id,
            payload_bytes=len(payload),
            base_bytes=self._store.num_bytes(model_id, "base"),
            residual_bytes=self._store.num_bytes(model_id, "residual"),
        )
        overhead = self._calls.push_bytes()
        for part, num_bytes in push_plan(stored).items():
            whole, rest = divmod(num_bytes, CHUNK_BYTES)
            wire = overhead + whole * _chunk_bytes(CHUNK_BYTES)
            progress(part, num_bytes, wire + (_chunk_bytes(rest) if rest else 0))
            overhead = 0
        return stored


def push_plan(model: StoredModel) -> dict[Part, int]:
    """The forms that bring an exact model up, with their bytes: two parts, or one if smaller."""
    if model.base_bytes + model.residual_bytes < model.payload_bytes:
        return {"base": model.base_bytes, "residual": model.residual_bytes}
    return {"exact": model.payload_bytes}


def acknowledgement_bytes(model: StoredModel) -> int:
    """Encoded length of the store's answer to a push."""
    stat = pb.ModelStat(
        model_id=model.model_id,
        payload_bytes=model.payload_bytes,
        base_bytes=model.base_bytes,
        residual_bytes=model.residual_bytes,
    )
    return int(stat.ByteSize())


def _chunk_bytes(num_bytes: int) -> int:
    return stream_bytes(data_message_bytes(num_bytes))
