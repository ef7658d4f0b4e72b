"""The canonical safetensors encoding of a model, in memory or in a file.

There is exactly one payload for one (architecture, parameters): names sorted, float32, compact
JSON, header padded to eight bytes. So the SHA-256 of a payload names the model, and a payload
in any other form is refused. Nothing is ever unpickled.

Layout (safetensors 0.x): uint64 header length, JSON header, tensor data, all little-endian.
Any seekable binary file will do for the functions on files, a ``BytesIO`` too; one block of
values is in memory at a time.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Final

import numpy as np

from graft.core.records import FloatArray, Parameters
from graft.errors import PayloadChangedError, PayloadError, PayloadLimitError, PayloadTruncatedError

Shapes = Mapping[str, tuple[int, ...]]

FORMAT: Final = "graft-1"
MAX_PAYLOAD_BYTES: Final = 512 * 1024 * 1024
MAX_HEADER_BYTES: Final = 256 * 1024
MAX_TENSORS: Final = 1024
MAX_DIMENSIONS: Final = 8
MAX_NAME_LENGTH: Final = 256
MAX_MAGNITUDE: Final = 1e9  # far beyond any trained value; squares of it still fit float32

BLOCK_VALUES: Final = 256 * 1024
F32_BYTES: Final = 4

_LENGTH_BYTES: Final = 8
_ALIGNMENT: Final = 8


def model_id(payload: bytes) -> str:
    """The model's name: SHA-256 of its exact payload, 64 lowercase hex digits."""
    return hashlib.sha256(payload).hexdigest()


def num_elements(shape: tuple[int, ...]) -> int:
    """The number of values in a tensor of this shape; 1 for a scalar."""
    return math.prod(shape)


def num_values(shapes: Shapes) -> int:
    """The number of values in all tensors."""
    return sum(map(num_elements, shapes.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class PayloadFacts:
    """What a checked payload holds; ``data_at`` is the offset of its first value."""

    model_id: str
    architecture: str
    shapes: dict[str, tuple[int, ...]]
    data_at: int

    @property
    def num_bytes(self) -> int:
        return self.data_at + F32_BYTES * num_values(self.shapes)


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
    """Write the payload of ``parameters`` to ``sink``; raises as ``encode_payload``."""
    arrays = _float32_arrays(parameters)
    writer = PayloadWriter(sink, architecture, {n: array.shape for n, array in arrays.items()})
    for name, array in arrays.items():
        flat = array.reshape(-1)
        for start in range(0, flat.size, BLOCK_VALUES):
            writer.append(name, flat[start : start + BLOCK_VALUES])
    return writer.finish()


def encode_payload(architecture: str, parameters: Parameters) -> bytes:
    """The canonical safetensors payload of ``parameters``; equal input gives equal bytes.

    Parameters
    ----------
    architecture
        The name of the architecture, which the header holds.
    parameters
        float32 arrays by tensor name, in any order.

    Raises
    ------
    PayloadLimitError
        For an empty or oversize model, a dtype other than float32, or values that are NaN,
        infinite or beyond ``MAX_MAGNITUDE``.
    """
    arrays = _float32_arrays(parameters)
    shapes = {name: array.shape for name, array in arrays.items()}
    check_shapes(architecture, shapes, None)
    for name, array in arrays.items():
        check_values(name, array)
    # Joined at once and not hashed: several times faster than writing blocks.
    data = (array.astype("<f4", copy=False).tobytes() for array in arrays.values())
    return b"".join((canonical_header(architecture, shapes), *data))


def check_payload(file: BinaryIO, num_bytes: int, expected_shapes: Shapes | None) -> PayloadFacts:
    """Check everything that ``decode_payload`` checks, of a file's first ``num_bytes``.

    The caller compares the model id. Raises as ``decode_payload``.
    """
    architecture, shapes, start = read_header(file, num_bytes)
    check_shapes(architecture, shapes, expected_shapes)
    file.seek(0)
    digest = hashlib.sha256(file.read(start))
    for name, shape in shapes.items():
        left = num_elements(shape)
        while left:
            values = read_values(file, min(left, BLOCK_VALUES))
            check_values(name, values)
            digest.update(values.data.cast("B"))
            left -= values.size
    return PayloadFacts(
        model_id=digest.hexdigest(), architecture=architecture, shapes=shapes, data_at=start
    )


def decode_payload(
    payload: bytes, expected_shapes: Shapes | None, expected_id: str | None
) -> tuple[str, dict[str, FloatArray]]:
    """The architecture's name and the parameters of a payload in memory.

    Parameters
    ----------
    payload
        Bytes from anywhere; nothing in them is trusted.
    expected_shapes
        The shapes that the named architecture has; None: not compared.
    expected_id
        The model id that the payload must hash to; None: not compared.

    Raises
    ------
    PayloadTruncatedError, PayloadChangedError, PayloadLimitError
        And nothing else, whatever the bytes are.
    """
    file = BytesIO(payload)
    architecture, shapes, start = read_header(file, len(payload))
    check_shapes(architecture, shapes, expected_shapes)
    if expected_id is not None and (got := model_id(payload)) != expected_id:
        raise PayloadChangedError(f"payload hashes to {got}, wanted {expected_id}")
    parameters = load_tensors(file, shapes, start, mapped=False)
    for name, array in parameters.items():
        check_values(name, array)
    return architecture, parameters


def load_tensors(
    file: BinaryIO, shapes: Shapes, data_at: int, *, mapped: bool
) -> dict[str, FloatArray]:
    """The tensors whose values start at ``data_at`` of a file, read into memory or ``mapped``.

    Mapped arrays are private views of the file: its pages come into memory as they are read, and
    what is written to an array stays in memory.
    """
    count = num_values(shapes)
    if mapped:
        pages = np.memmap(file, dtype="<f4", mode="c", offset=data_at, shape=(count,))
        values = pages.view(np.ndarray)
    else:
        values = np.empty(count, "<f4")
        file.seek(data_at)
        file.readinto(values.view(np.uint8))  # type: ignore[attr-defined]
    parameters, at = {}, 0
    for name, shape in shapes.items():
        parameters[name] = values[at : at + num_elements(shape)].reshape(shape)
        at += num_elements(shape)
    return parameters


def read_header(file: BinaryIO, num_bytes: int) -> tuple[str, dict[str, tuple[int, ...]], int]:
    """Architecture, shapes and the offset of the data, of the payload in a file's ``num_bytes``."""
    if num_bytes > MAX_PAYLOAD_BYTES:
        raise PayloadLimitError(f"payload: {num_bytes} bytes, limit {MAX_PAYLOAD_BYTES}")
    if num_bytes < _LENGTH_BYTES:
        raise PayloadTruncatedError(f"payload: {num_bytes} bytes, shorter than any header")
    file.seek(0)
    length = file.read(_LENGTH_BYTES)
    header_bytes = int.from_bytes(length, "little")
    start = _LENGTH_BYTES + header_bytes
    if header_bytes > MAX_HEADER_BYTES:
        raise PayloadLimitError(f"header: {header_bytes} bytes, limit {MAX_HEADER_BYTES}")
    if start > num_bytes:
        raise PayloadTruncatedError(f"payload: {num_bytes} bytes, its header alone ends {start}")
    text = file.read(header_bytes)
    architecture, shapes = _parse_header(text)
    check_shapes(architecture, shapes, None)
    end = start + F32_BYTES * num_values(shapes)
    if num_bytes < end:
        raise PayloadTruncatedError(f"payload: {num_bytes} bytes, header announces {end}")
    # Rebuilding the header refuses duplicate keys, gaps, overlaps and reordering all at once.
    if num_bytes > end or length + text != canonical_header(architecture, shapes):
        raise PayloadChangedError("payload is not in the canonical encoding of its tensors")
    return architecture, shapes, start


def read_values(file: BinaryIO, count: int) -> FloatArray:
    """The next ``count`` values; raises PayloadChangedError where the file has shrunk."""
    data = file.read(F32_BYTES * count)
    if len(data) != F32_BYTES * count:
        raise PayloadChangedError(f"payload: {len(data)} bytes left, wanted {F32_BYTES * count}")
    return np.frombuffer(data, "<f4").astype(np.float32, copy=False)


def check_shapes(architecture: str, shapes: Shapes, expected: Shapes | None) -> None:
    """Compare names and shapes with the limits and ``expected``; raises PayloadLimitError."""
    check_name("architecture", architecture)
    if not 1 <= len(shapes) <= MAX_TENSORS:
        raise PayloadLimitError(f"model: {len(shapes)} tensors, wanted 1 to {MAX_TENSORS}")
    total = 0
    for name, shape in shapes.items():
        check_name("tensor", name)
        if len(shape) > MAX_DIMENSIONS or any(size < 1 for size in shape):
            raise PayloadLimitError(f"tensor {name!r}: shape {shape} is not acceptable")
        total += F32_BYTES * num_elements(shape)
        if total > MAX_PAYLOAD_BYTES:
            raise PayloadLimitError(f"model: tensors exceed {MAX_PAYLOAD_BYTES} bytes")
    if expected is None:
        return
    for name in sorted(expected.keys() | shapes.keys()):
        got, wanted = shapes.get(name), expected.get(name)
        if got is None or wanted is None or got != tuple(wanted):
            raise PayloadLimitError(
                f"tensor {name!r} of {architecture}: got shape {got}, wanted {wanted}"
            )


def check_name(what: str, name: str) -> None:
    """Refuse an empty, overlong or unprintable name with PayloadLimitError."""
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable() or name == "__metadata__":
        raise PayloadLimitError(f"{what} name {name[:40]!r} is not acceptable")


def check_values(name: str, array: FloatArray) -> None:
    """Refuse NaN, infinity and absurd magnitudes with PayloadLimitError."""
    if not bool((np.abs(array) <= MAX_MAGNITUDE).all()):  # false for NaN as well
        raise PayloadLimitError(f"tensor {name!r} holds NaN, infinity or beyond {MAX_MAGNITUDE:g}")


def canonical_header(architecture: str, shapes: Shapes) -> bytes:
    """The one header of a payload of these tensors, its length word included."""
    header: dict[str, object] = {"__metadata__": {"architecture": architecture, "format": FORMAT}}
    offset = 0
    for name in sorted(shapes):
        end = offset + F32_BYTES * num_elements(shapes[name])
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES:
        raise PayloadLimitError(f"header: {len(text)} bytes, limit {MAX_HEADER_BYTES}")
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def payload_bytes_of(architecture: str, shapes: Shapes) -> int:
    """The length of a payload of these tensors; raises PayloadLimitError beyond the limit."""
    num_bytes = len(canonical_header(architecture, shapes)) + F32_BYTES * num_values(shapes)
    if num_bytes > MAX_PAYLOAD_BYTES:
        raise PayloadLimitError(f"payload: {num_bytes} bytes, limit {MAX_PAYLOAD_BYTES}")
    return num_bytes


def _float32_arrays(parameters: Parameters) -> dict[str, FloatArray]:
    """The arrays in order of their names; raises PayloadLimitError for another dtype."""
    arrays = {name: np.asarray(parameters[name]) for name in sorted(parameters)}
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise PayloadLimitError(f"tensor {name!r}: got {array.dtype}, wanted float32")
    return arrays


def _parse_header(text: bytes) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Architecture and shapes as the JSON claims them; offsets are checked by rebuilding."""
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__")
        architecture, form = metadata["architecture"], metadata["format"]
        if len(header) > MAX_TENSORS:
            raise PayloadLimitError(f"header: {len(header)} tensors, limit {MAX_TENSORS}")
        shapes: dict[str, tuple[int, ...]] = {}
        for name, entry in header.items():
            if entry["dtype"] != "F32":
                raise PayloadLimitError(f"tensor {name!r}: dtype {entry['dtype']!r}, wanted F32")
            shapes[name] = tuple(entry["shape"])
    except PayloadError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PayloadChangedError(f"payload header cannot be read: {error!r}") from error
    sizes = [size for shape in shapes.values() for size in shape]
    if (
        form != FORMAT
        or not isinstance(architecture, str)
        or any(type(s) is not int for s in sizes)
    ):
        raise PayloadChangedError(f"payload header: format {form!r}, wanted {FORMAT!r}")
    return architecture, shapes
