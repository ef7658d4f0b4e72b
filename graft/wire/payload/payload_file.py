"""A payload as a file: written, checked and mapped a block at a time, whatever its size.

The bytes are those of ``payload``; only what is held in memory differs.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np

from graft.core.records import FloatArray, Parameters
from graft.errors import PayloadChangedError, PayloadLimitError
from graft.wire.payload.encoding import (
    HEAD_BYTES,
    MAX_PAYLOAD_BYTES,
    Shapes,
    canonical_header,
    check_shapes,
    check_values,
    cut_tensors,
    num_elements,
    read_header,
)

BLOCK_VALUES: Final = 256 * 1024
IN_MEMORY_BYTES: Final = 16 * 1024 * 1024  # smaller models are quicker as bytes
_F32_BYTES: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class PayloadFacts:
    """What a payload file holds; ``data_at`` is the offset of its first value."""

    model_id: str
    architecture: str
    shapes: dict[str, tuple[int, ...]]
    data_at: int

    @property
    def num_values(self) -> int:
        return sum(map(num_elements, self.shapes.values()))

    @property
    def num_bytes(self) -> int:
        return self.data_at + _F32_BYTES * self.num_values


class PayloadWriter:
    """Writes a payload's header, then its values in order, and hashes and checks them all.

    Raises PayloadLimitError for shapes or values outside the limits.
    """

    def __init__(self, sink: BinaryIO, architecture: str, shapes: Shapes) -> None:
        check_shapes(architecture, shapes, None)
        self._sink = sink
        self._architecture = architecture
        self._shapes = {name: tuple(shapes[name]) for name in sorted(shapes)}
        header = canonical_header(architecture, self._shapes)
        self._data_at = len(header)
        self._digest = hashlib.sha256(header)
        sink.write(header)

    def append(self, name: str, values: FloatArray) -> None:
        """The next values, flat, of the tensor ``name``."""
        check_values(name, values)
        data = np.ascontiguousarray(values, dtype="<f4").data.cast("B")
        self._digest.update(data)
        self._sink.write(data)

    def finish(self) -> PayloadFacts:
        self._sink.flush()
        return PayloadFacts(
            model_id=self._digest.hexdigest(),
            architecture=self._architecture,
            shapes=self._shapes,
            data_at=self._data_at,
        )


def write_payload(architecture: str, parameters: Parameters, sink: BinaryIO) -> PayloadFacts:
    """Write what ``encode_payload`` would give; raises as it does."""
    arrays = {name: np.asarray(parameters[name]) for name in sorted(parameters)}
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise PayloadLimitError(f"tensor {name!r}: got {array.dtype}, wanted float32")
    writer = PayloadWriter(sink, architecture, {n: array.shape for n, array in arrays.items()})
    for name, array in arrays.items():
        flat = array.reshape(-1)
        for start in range(0, flat.size, BLOCK_VALUES):
            writer.append(name, flat[start : start + BLOCK_VALUES])
    return writer.finish()


def read_payload_head(
    file: BinaryIO, num_bytes: int
) -> tuple[str, dict[str, tuple[int, ...]], int]:
    """``read_header`` of the payload in a file's first ``num_bytes``."""
    file.seek(0)
    return read_header(file.read(min(HEAD_BYTES, num_bytes)), num_bytes)


def check_payload(file: BinaryIO, num_bytes: int, expected_shapes: Shapes | None) -> PayloadFacts:
    """Hold a file's first ``num_bytes`` to all that ``decode_payload`` holds a payload to.

    Raises PayloadTruncatedError, PayloadChangedError or PayloadLimitError, and nothing else.
    """
    architecture, shapes, start = read_payload_head(file, num_bytes)
    check_shapes(architecture, shapes, expected_shapes)
    file.seek(0)
    digest = hashlib.sha256(file.read(start))
    for name, values in value_blocks(file, shapes):
        check_values(name, values)
        digest.update(values.data.cast("B"))
    return PayloadFacts(
        model_id=digest.hexdigest(), architecture=architecture, shapes=shapes, data_at=start
    )


def value_blocks(file: BinaryIO, shapes: Shapes) -> Iterator[tuple[str, FloatArray]]:
    """From where the file stands: every tensor's name and values, a block at a time."""
    for name, shape in shapes.items():
        left = num_elements(shape)
        while left:
            count = min(left, BLOCK_VALUES)
            yield name, read_values(file, count)
            left -= count


def read_values(file: BinaryIO, count: int) -> FloatArray:
    """The next ``count`` values; raises PayloadChangedError where the file has shrunk."""
    data = file.read(_F32_BYTES * count)
    if len(data) != _F32_BYTES * count:
        raise PayloadChangedError(f"payload file: {len(data)} bytes left, wanted {4 * count}")
    return np.frombuffer(data, "<f4").astype(np.float32, copy=False)


def map_values(file: BinaryIO, shapes: Shapes, data_at: int) -> dict[str, FloatArray]:
    """The tensors behind ``data_at``, as private views of the file's pages.

    Pages come into memory as they are read; what is written to an array stays in memory.
    """
    count = sum(map(num_elements, shapes.values()))
    mapped = np.memmap(file, dtype="<f4", mode="c", offset=data_at, shape=(count,))
    return cut_tensors(mapped.view(np.ndarray), shapes)


def fits_in_memory(shapes: Shapes) -> bool:
    """Whether a model is so small that files would only make it slower."""
    return _F32_BYTES * sum(map(num_elements, shapes.values())) < IN_MEMORY_BYTES


def payload_bytes_of(architecture: str, shapes: Shapes) -> int:
    """How long a payload of these tensors is; raises PayloadLimitError beyond the limit."""
    values = sum(map(num_elements, shapes.values()))
    num_bytes = len(canonical_header(architecture, shapes)) + _F32_BYTES * values
    if num_bytes > MAX_PAYLOAD_BYTES:
        raise PayloadLimitError(f"payload: {num_bytes} bytes, limit {MAX_PAYLOAD_BYTES}")
    return num_bytes
