"""A model as bytes: one canonical safetensors encoding, checked before it is believed.

There is exactly one payload for one (architecture, parameters): names sorted, float32, compact
JSON, header padded to eight bytes. So the SHA-256 of a payload names the model, and a payload
in any other form is refused. Nothing is ever unpickled.

Layout (safetensors 0.x): uint64 header length, JSON header, tensor data, all little-endian.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Final

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

_LENGTH_BYTES: Final = 8
_F32_BYTES: Final = 4
_ALIGNMENT: Final = 8
HEAD_BYTES: Final = _LENGTH_BYTES + MAX_HEADER_BYTES  # a payload's first bytes that tell all


def model_id(payload: bytes) -> str:
    """The model's name: SHA-256 of its exact payload, 64 lowercase hex digits."""
    return hashlib.sha256(payload).hexdigest()


def num_elements(shape: tuple[int, ...]) -> int:
    """Values in a tensor of this shape; 1 for a scalar."""
    return math.prod(shape)


def encode_payload(architecture: str, parameters: Parameters) -> bytes:
    """The canonical safetensors payload of ``parameters``; equal input gives equal bytes.

    Raises PayloadLimitError for an empty or oversize model, a dtype other than float32, or
    values that are not finite.
    """
    arrays: dict[str, FloatArray] = {}
    for name in sorted(parameters):
        array = np.asarray(parameters[name])
        if array.dtype != np.float32:
            raise PayloadLimitError(f"tensor {name!r}: got {array.dtype}, wanted float32")
        arrays[name] = array
    shapes = {name: array.shape for name, array in arrays.items()}
    check_shapes(architecture, shapes, None)
    for name, array in arrays.items():
        check_values(name, array)
    header = canonical_header(architecture, shapes)
    data = (array.astype("<f4", copy=False).tobytes() for array in arrays.values())
    return b"".join((header, *data))


def decode_payload(
    payload: bytes, expected_shapes: Shapes | None, expected_id: str | None
) -> tuple[str, dict[str, FloatArray]]:
    """The architecture's name and its parameters, as arrays of their own memory.

    ``expected_shapes``: the shapes the named architecture has (None: not compared).
    ``expected_id``: the model id the payload must hash to (None: not compared).
    Raises PayloadTruncatedError, PayloadChangedError or PayloadLimitError, and nothing else.
    """
    architecture, shapes, start = read_header(payload)
    check_shapes(architecture, shapes, expected_shapes)
    if expected_id is not None and (got := model_id(payload)) != expected_id:
        raise PayloadChangedError(f"payload hashes to {got}, wanted {expected_id}")
    values = np.frombuffer(payload, dtype="<f4", offset=start).astype(np.float32)
    parameters = cut_tensors(values, shapes)
    for name, array in parameters.items():
        check_values(name, array)
    return architecture, parameters


def read_header(
    payload: bytes, num_bytes: int | None = None
) -> tuple[str, dict[str, tuple[int, ...]], int]:
    """Architecture, shapes and the offset of the data, from a payload of the right length.

    ``num_bytes``: of the whole payload, where only its first ``HEAD_BYTES`` are given.
    """
    num_bytes = len(payload) if num_bytes is None else num_bytes
    if num_bytes > MAX_PAYLOAD_BYTES:
        raise PayloadLimitError(f"payload: {num_bytes} bytes, limit {MAX_PAYLOAD_BYTES}")
    if len(payload) < _LENGTH_BYTES:
        raise PayloadTruncatedError(f"payload: {num_bytes} bytes, shorter than any header")
    header_bytes = int.from_bytes(payload[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + header_bytes
    if header_bytes > MAX_HEADER_BYTES:
        raise PayloadLimitError(f"header: {header_bytes} bytes, limit {MAX_HEADER_BYTES}")
    if start > len(payload):
        raise PayloadTruncatedError(f"payload: {num_bytes} bytes, its header alone ends {start}")
    architecture, shapes = _parse_header(payload[_LENGTH_BYTES:start])
    check_shapes(architecture, shapes, None)
    end = start + _F32_BYTES * sum(map(num_elements, shapes.values()))
    if num_bytes < end:
        raise PayloadTruncatedError(f"payload: {num_bytes} bytes, header announces {end}")
    # Rebuilding the header refuses duplicate keys, gaps, overlaps and reordering all at once.
    if num_bytes > end or payload[:start] != canonical_header(architecture, shapes):
        raise PayloadChangedError("payload is not in the canonical encoding of its tensors")
    return architecture, shapes, start


def check_shapes(architecture: str, shapes: Shapes, expected: Shapes | None) -> None:
    """Hold names and shapes to the limits and to ``expected``; raises PayloadLimitError."""
    check_name("architecture", architecture)
    if not 1 <= len(shapes) <= MAX_TENSORS:
        raise PayloadLimitError(f"model: {len(shapes)} tensors, wanted 1 to {MAX_TENSORS}")
    total = 0
    for name, shape in shapes.items():
        check_name("tensor", name)
        if len(shape) > MAX_DIMENSIONS or any(size < 1 for size in shape):
            raise PayloadLimitError(f"tensor {name!r}: shape {shape} is not acceptable")
        total += _F32_BYTES * num_elements(shape)
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


def cut_tensors(values: FloatArray, shapes: Shapes) -> dict[str, FloatArray]:
    """The flat values, in order of ``shapes``, as named tensors (views)."""
    parameters, offset = {}, 0
    for name, shape in shapes.items():
        parameters[name] = values[offset : offset + num_elements(shape)].reshape(shape)
        offset += num_elements(shape)
    return parameters


def check_values(name: str, array: FloatArray) -> None:
    """Refuse NaN, infinity and absurd magnitudes with PayloadLimitError."""
    if not bool((np.abs(array) <= MAX_MAGNITUDE).all()):  # false for NaN as well
        raise PayloadLimitError(f"tensor {name!r} holds NaN, infinity or beyond {MAX_MAGNITUDE:g}")


def canonical_header(architecture: str, shapes: Shapes) -> bytes:
    """The one header of a payload of these tensors, its length word included."""
    header: dict[str, object] = {"__metadata__": {"architecture": architecture, "format": FORMAT}}
    offset = 0
    for name in sorted(shapes):
        end = offset + _F32_BYTES * num_elements(shapes[name])
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES:
        raise PayloadLimitError(f"header: {len(text)} bytes, limit {MAX_HEADER_BYTES}")
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


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
