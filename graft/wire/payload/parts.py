"""A payload in two parts: an int8 base that is enough to probe, and the exact rest.

Base: tensors of two or more axes are quantised symmetrically, one float32 scale a row of the
first axis; vectors and scalars (biases, batch statistics) keep the upper half of each float32,
because a variance needs relative precision. Residual: the distance between the bit patterns
of the true value and of the base's prediction, on the line where float32 bit patterns are in
numeric order, so it is lossless for every pattern. Distances are grouped by the magnitude of
their int8 code, which both sides know and which fixes how long a distance tends to be.

Each part is a magic word and sections (``sections``).
Source of the format: ours. Sizes measured on trained-like nets are in the tests.
"""

import json
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from graft.core.records import FloatArray, Parameters
from graft.errors import PayloadChangedError, PayloadLimitError
from graft.wire.payload.encoding import (
    MAX_MAGNITUDE,
    Shapes,
    check_shapes,
    cut_tensors,
    decode_payload,
    encode_payload,
    num_elements,
)
from graft.wire.payload.sections import SectionReader, pack_plane, pack_text

BASE_MAGIC: Final = b"GRB1"
RESIDUAL_MAGIC: Final = b"GRR1"
NUM_PLANES: Final = 4
LEVELS: Final = 127
HALF_GROUP: Final = 128  # the group of half-precision values, after every |int8 code|
_UPPER_HALF: Final = np.uint32(0xFFFF0000)

UInt32Array = npt.NDArray[np.uint32]
ByteArray = npt.NDArray[np.uint8]
CodeArray = npt.NDArray[np.int8]
_Array = TypeVar("_Array", CodeArray, FloatArray)


def split_payload(payload: bytes) -> tuple[bytes, bytes]:
    """(base, residual) of a canonical payload; deterministic, and ``join_parts`` undoes it.

    Raises PayloadError for a payload that ``decode_payload`` refuses.
    """
    return split_parameters(*decode_payload(payload, None, None))


def split_parameters(architecture: str, parameters: Parameters) -> tuple[bytes, bytes]:
    """(base, residual) of the payload that these parameters, in order of their names, make."""
    shapes = {name: array.shape for name, array in parameters.items()}
    codes: list[CodeArray] = []
    scales: list[FloatArray] = []
    halves: list[FloatArray] = []
    for array in parameters.values():
        if array.ndim < 2:
            halves.append(array.ravel())
            continue
        rows = array.reshape(array.shape[0], -1)
        scale = (np.abs(rows).max(axis=1) / np.float32(LEVELS)).astype(np.float32)
        divisor = np.where(scale > 0, scale, np.float32(1))[:, None]
        codes.append(np.clip(np.rint(rows / divisor), -LEVELS, LEVELS).astype(np.int8).ravel())
        scales.append(scale)
    codes_N, scales_R = _joined(codes, np.int8), _joined(scales, np.float32)
    halves_V = (_joined(halves, np.float32).view(np.uint32) & _UPPER_HALF).view(np.float32)
    header = json.dumps([architecture, shapes], separators=(",", ":")).encode("ascii")
    base = BASE_MAGIC + b"".join(
        (
            pack_text(header),
            pack_plane(codes_N.tobytes()),
            *map(pack_plane, byte_planes(scales_R.view(np.uint32))),
            *map(pack_plane, byte_planes(halves_V.view(np.uint32))[2:]),
        )
    )
    predicted, group = _predict(shapes, codes_N, scales_R, halves_V)
    true = np.concatenate([array.ravel() for array in parameters.values()])
    order = np.argsort(group, kind="stable")
    distance = (ordered_bits(true) - ordered_bits(predicted))[order].view(np.int32)
    folded = ((distance << 1) ^ (distance >> 31)).view(np.uint32)  # small either way: small
    return base, RESIDUAL_MAGIC + b"".join(map(pack_plane, byte_planes(folded)))


def decode_base(
    base: bytes, expected_shapes: Shapes | None = None
) -> tuple[str, dict[str, FloatArray]]:
    """The architecture's name and its approximate parameters, each row within half its step.

    Raises PayloadTruncatedError, PayloadChangedError or PayloadLimitError, and nothing else.
    """
    architecture, shapes, predicted, _ = _read_base(base, expected_shapes)
    return architecture, cut_tensors(predicted, shapes)


def read_base_header(base: bytes) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Architecture and shapes that a base claims, before any tensor is inflated."""
    return parse_base_header(SectionReader(base, BASE_MAGIC).section(None))


def join_parts(base: bytes, residual: bytes, expected_shapes: Shapes | None = None) -> bytes:
    """The exact payload that was split; the caller compares its hash with the model id.

    With ``expected_shapes`` small parts cannot claim, and inflate to, a large model.
    Raises PayloadTruncatedError, PayloadChangedError or PayloadLimitError, and nothing else.
    """
    architecture, shapes, predicted, group = _read_base(base, expected_shapes)
    reader = SectionReader(residual, RESIDUAL_MAGIC)
    folded = from_planes([reader.section(predicted.size) for _ in range(NUM_PLANES)])
    reader.finish()
    distance = (folded >> 1) ^ (np.uint32(0) - (folded & 1))
    distances = np.empty_like(distance)
    distances[np.argsort(group, kind="stable")] = distance
    exact = unordered_bits(ordered_bits(predicted) + distances)
    parameters: Parameters = cut_tensors(exact, shapes)
    return encode_payload(architecture, parameters)


def _read_base(
    base: bytes, expected_shapes: Shapes | None = None
) -> tuple[str, dict[str, tuple[int, ...]], FloatArray, ByteArray]:
    """Architecture, shapes, all predicted values in order, and each value's group."""
    reader = SectionReader(base, BASE_MAGIC)
    architecture, shapes = parse_base_header(reader.section(None))
    check_shapes(architecture, shapes, expected_shapes)
    matrices = [shape for shape in shapes.values() if len(shape) >= 2]
    vectors = [shape for shape in shapes.values() if len(shape) < 2]
    num_rows = sum(shape[0] for shape in matrices)
    num_halves = sum(map(num_elements, vectors))
    codes_N = np.frombuffer(reader.section(sum(map(num_elements, matrices))), np.int8)
    scales_R = from_planes([reader.section(num_rows) for _ in range(4)]).view(np.float32)
    low, high = (np.frombuffer(reader.section(num_halves), np.uint8) for _ in range(2))
    reader.finish()
    halves_V = ((low.astype(np.uint32) << 16) | (high.astype(np.uint32) << 24)).view(np.float32)
    return architecture, shapes, *_predict(shapes, codes_N, scales_R, halves_V)


def _predict(
    shapes: Shapes, codes_N: CodeArray, scales_R: FloatArray, halves_V: FloatArray
) -> tuple[FloatArray, ByteArray]:
    """Every value that the base gives, in order of the tensors, and each value's group."""
    values: list[FloatArray] = []
    groups: list[ByteArray] = []
    at_code = at_row = at_half = 0
    for name, shape in shapes.items():
        count = num_elements(shape)
        if len(shape) < 2:
            half = halves_V[at_half : at_half + count]
            check_bound(name, half, MAX_MAGNITUDE)
            values.append(half)
            groups.append(np.full(count, HALF_GROUP, np.uint8))
            at_half += count
            continue
        code, scale = codes_N[at_code : at_code + count], scales_R[at_row : at_row + shape[0]]
        check_bound(name, scale, MAX_MAGNITUDE / (LEVELS - 1))
        values.append(code.astype(np.float32) * np.repeat(scale, count // shape[0]))
        groups.append(np.abs(code.astype(np.int16)).astype(np.uint8))
        at_code, at_row = at_code + count, at_row + shape[0]
    return np.concatenate(values), np.concatenate(groups)


def check_bound(name: str, values: FloatArray, bound: float) -> None:
    """Raises PayloadLimitError for values beyond ``bound``, or that are none."""
    if not bool((np.abs(values) <= bound).all()):  # false for NaN as well
        raise PayloadLimitError(f"base of tensor {name!r} holds NaN, infinity or beyond {bound:g}")


def parse_base_header(text: bytes) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Architecture and shapes of a base's first section; raises PayloadChangedError."""
    try:
        architecture, listed = json.loads(text)
        shapes = {name: tuple(shape) for name, shape in listed.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PayloadChangedError(f"base header cannot be read: {error!r}") from error
    sizes = [size for shape in shapes.values() for size in shape]
    if not isinstance(architecture, str) or any(type(size) is not int for size in sizes):
        raise PayloadChangedError("base header: wanted a name and integer shapes")
    if list(shapes) != sorted(shapes):
        raise PayloadChangedError("base header: tensors are not in order of their names")
    return architecture, shapes


def ordered_bits(values: FloatArray) -> UInt32Array:
    """Bit patterns moved so that unsigned order is numeric order; -0.0 just below +0.0."""
    bits = values.view(np.uint32)
    negative = (bits >> 31).astype(np.bool_)
    return np.where(negative, ~bits, bits | np.uint32(0x80000000))


def unordered_bits(ordered: UInt32Array) -> FloatArray:
    """The values of ``ordered_bits``."""
    positive = (ordered >> 31).astype(np.bool_)
    return np.where(positive, ordered & np.uint32(0x7FFFFFFF), ~ordered).view(np.float32)


def _joined(arrays: list[_Array], dtype: type) -> _Array:
    return np.concatenate([np.empty(0, dtype), *arrays])


def byte_planes(words: UInt32Array) -> list[bytes]:
    """Byte planes of words, least significant first: noise apart from what compresses."""
    as_bytes = words.astype("<u4").view(np.uint8).reshape(-1, NUM_PLANES)
    return [as_bytes[:, plane].tobytes() for plane in range(NUM_PLANES)]


def from_planes(planes: list[bytes]) -> UInt32Array:
    """The words of ``byte_planes``."""
    columns = [np.frombuffer(plane, np.uint8).astype(np.uint32) for plane in planes]
    words = columns[0]
    for plane, column in enumerate(columns[1:], start=1):
        words = words | (column << np.uint32(8 * plane))
    return words
