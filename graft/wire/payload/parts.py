"""A payload in two parts: an int8 base that is enough to probe, and the exact rest.

Base: tensors of two or more axes are quantised symmetrically, one float32 scale a row of the
first axis; vectors and scalars (biases, batch statistics) keep the upper half of each float32,
because a variance needs relative precision. Residual: the distance between the bit patterns
of the true value and of the base's prediction, on the line where float32 bit patterns are in
numeric order, so it is lossless for every pattern. Distances are grouped by the magnitude of
their int8 code, which both sides know and which predicts how long a distance is.

Base: magic word, header, codes, 4 byte planes of the scales, upper 2 of the vectors. Residual:
magic word, 4 byte planes of the distances. Source of the format: ours.

A model is worked on in blocks; codes and planes, which the format wants whole, lie in working
files, and each value's position in a plane follows from the sizes of the groups. In memory are a
block and the scales.
"""

# V values of one block, R rows of all matrices

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from graft.core.records import FloatArray
from graft.errors import PayloadChangedError, PayloadLimitError
from graft.wire.payload.blocks import (
    Block,
    ByteArray,
    PartFile,
    PartReader,
    Piece,
    file_blocks,
    open_work,
    pack_plane,
    pack_text,
    read_at,
    value_blocks,
    write_all,
)
from graft.wire.payload.encoding import (
    MAX_MAGNITUDE,
    PayloadFacts,
    PayloadWriter,
    Shapes,
    check_payload,
    check_shapes,
    load_tensors,
    num_elements,
    num_values,
    payload_bytes_of,
    read_values,
)

_BASE_MAGIC: Final = b"GRB1"
_RESIDUAL_MAGIC: Final = b"GRR1"
_NUM_PLANES: Final = 4
_LEVELS: Final = 127
_HALF_GROUP: Final = 128  # the group of half-precision values, after every |int8 code|
_NUM_GROUPS: Final = _HALF_GROUP + 1
_SIGN: Final = np.uint32(0x80000000)

UInt32Array = npt.NDArray[np.uint32]


def split_payload(payload: bytes) -> tuple[bytes, bytes]:
    """(base, residual) of a canonical payload; deterministic, and ``join_parts`` undoes it.

    Raises PayloadError for a payload that ``decode_payload`` refuses.
    """
    file, base, residual = BytesIO(payload), BytesIO(), BytesIO()
    split_file(check_payload(file, len(payload), None), file, base, residual, None)
    return base.getvalue(), residual.getvalue()


def join_parts(base: bytes, residual: bytes, expected_shapes: Shapes | None = None) -> bytes:
    """The exact payload that was split; the caller compares its hash with the model id.

    With ``expected_shapes`` small parts cannot claim, and inflate to, a large model.
    Raises PayloadTruncatedError, PayloadChangedError or PayloadLimitError, and nothing else.
    """
    sink = BytesIO()
    join_files(_in_memory(base), _in_memory(residual), sink, None, expected_shapes)
    return sink.getvalue()


def decode_base(
    base: bytes, expected_shapes: Shapes | None = None
) -> tuple[str, dict[str, FloatArray]]:
    """The architecture's name and its approximate parameters, each row within half its step.

    Raises PayloadTruncatedError, PayloadChangedError or PayloadLimitError, and nothing else.
    """
    return read_base(_in_memory(base), None, expected_shapes)


def split_file(
    facts: PayloadFacts, payload: BinaryIO, base: BinaryIO, residual: BinaryIO, folder: Path | None
) -> None:
    """Write both parts of a checked payload to empty files.

    ``folder``: where working files lie (None: in memory).
    """
    with ExitStack() as files:
        raw = _quantise(facts, payload, files, folder)
        header = json.dumps([facts.architecture, facts.shapes], separators=(",", ":"))
        write_all(base, _BASE_MAGIC)
        pack_text(header.encode("ascii"), base)
        scale_planes = [BytesIO(p.data) for p in _byte_planes(raw.scales_R.view(np.uint32))]
        for plane in (raw.codes, *scale_planes, *raw.halves):
            pack_plane(plane, base)
        planes = [files.enter_context(open_work(folder)) for _ in range(_NUM_PLANES)]
        payload.seek(facts.data_at)
        positions = _GroupPositions(raw)
        for _, predicted_V, group_V in raw.predictions():
            true_V = read_values(payload, predicted_V.size)
            order = np.argsort(group_V, kind="stable")
            distance = (_ordered_bits(true_V) - _ordered_bits(predicted_V))[order].view(np.int32)
            folded = ((distance << 1) ^ (distance >> 31)).view(np.uint32)  # small either way
            runs = positions.runs(group_V)
            for plane, column in zip(planes, _byte_planes(folded), strict=True):
                for at, start, end in runs:
                    plane.seek(at)
                    write_all(plane, column[start:end])
        write_all(residual, _RESIDUAL_MAGIC)
        for plane in planes:
            pack_plane(plane, residual)
    base.flush()
    residual.flush()


def join_files(
    base: PartFile,
    residual: PartFile,
    sink: BinaryIO,
    folder: Path | None,
    expected_shapes: Shapes | None,
) -> PayloadFacts:
    """Write the exact payload that was split; the caller compares its id.

    ``folder``: as of ``split_file``. Raises as ``join_parts``.
    """
    with ExitStack() as files:
        architecture, raw = _read_base(base, files, folder, expected_shapes)
        reader, count = PartReader(residual, _RESIDUAL_MAGIC), num_values(raw.shapes)
        planes = [
            reader.plane(count, files.enter_context(open_work(folder))) for _ in range(_NUM_PLANES)
        ]
        reader.finish()
        writer, positions = PayloadWriter(sink, architecture, raw.shapes), _GroupPositions(raw)
        for block, predicted_V, group_V in raw.predictions():
            runs = positions.runs(group_V)
            folded = _from_planes(
                [
                    np.concatenate([read_at(plane, at, end - start) for at, start, end in runs])
                    for plane in planes
                ]
            )
            distance_V = np.empty_like(folded)
            distance_V[np.argsort(group_V, kind="stable")] = (folded >> 1) ^ (
                np.uint32(0) - (folded & 1)
            )
            exact_V = _unordered_bits(_ordered_bits(predicted_V) + distance_V)
            for piece, start in _starts(block):
                writer.append(piece.name, exact_V[start : start + piece.size])
        return writer.finish()


def read_base(
    base: PartFile, folder: Path | None, expected_shapes: Shapes | None
) -> tuple[str, dict[str, FloatArray]]:
    """``decode_base`` of a file; with a ``folder`` the arrays are views of a working file."""
    with ExitStack() as files:
        architecture, raw = _read_base(base, files, folder, expected_shapes)
        sink = files.enter_context(open_work(folder))
        for _, predicted_V, _ in raw.predictions():
            write_all(sink, predicted_V.astype("<f4", copy=False).view(np.uint8))
        return architecture, load_tensors(sink, raw.shapes, 0, mapped=folder is not None)


def read_base_header(base: PartFile) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Architecture and shapes that a base claims, before any tensor is inflated."""
    return _parse_header(PartReader(base, _BASE_MAGIC).text())


@dataclass(frozen=True, kw_only=True, slots=True)
class _RawBase:
    """A base's sections, unpacked: codes, scales, the upper two byte planes of the vectors."""

    shapes: Shapes
    blocks: list[Block]
    codes: BinaryIO
    halves: list[BinaryIO]
    scales_R: FloatArray

    def predictions(self) -> Iterator[tuple[Block, FloatArray, ByteArray]]:
        """Every block's pieces, predicted values, and the values' groups."""
        at_code = at_half = 0
        for block in self.blocks:
            size = sum(piece.size for piece in block)
            num_codes = sum(piece.size for piece in block if piece.row is not None)
            code_V = read_at(self.codes, at_code, num_codes).view(np.int8)
            low, high = (
                read_at(plane, at_half, size - num_codes).astype(np.uint32) for plane in self.halves
            )
            half_V = ((low << 16) | (high << 24)).view(np.float32)
            at_code, at_half = at_code + num_codes, at_half + half_V.size
            predicted_V, group_V = np.empty(size, np.float32), np.empty(size, np.uint8)
            code_at = half_at = 0
            for piece, start in _starts(block):
                into = slice(start, start + piece.size)
                if piece.row is None:
                    half = half_V[half_at : half_at + piece.size]
                    _check_bound(piece.name, half, MAX_MAGNITUDE)
                    predicted_V[into], group_V[into] = half, _HALF_GROUP
                    half_at += piece.size
                    continue
                code = code_V[code_at : code_at + piece.size]
                scale = self.scales_R[piece.row : piece.row + piece.num_rows]
                _check_bound(piece.name, scale, MAX_MAGNITUDE / (_LEVELS - 1))
                rows = code.reshape(piece.num_rows, piece.num_columns)
                np.multiply(rows, scale[:, None], out=predicted_V[into].reshape(rows.shape))
                group_V[into] = _magnitudes(code)
                code_at += piece.size
            yield block, predicted_V, group_V


class _GroupPositions:
    """Where in a plane the next values of each group belong."""

    def __init__(self, raw: _RawBase) -> None:
        self._num_values = num_values(raw.shapes)
        counts = np.zeros(_NUM_GROUPS, np.int64)
        counts[_HALF_GROUP] = raw.halves[0].seek(0, os.SEEK_END)
        for code in file_blocks(raw.codes):
            group = _magnitudes(np.frombuffer(code, np.int8))
            counts += np.bincount(group, minlength=_NUM_GROUPS)
        self._next = np.cumsum(counts) - counts

    def runs(self, group_V: ByteArray) -> list[tuple[int, int, int]]:
        """(position in the plane, start, end) of runs of a block that is sorted by group."""
        if group_V.size == self._num_values:
            return [(0, 0, group_V.size)]
        counts = np.bincount(group_V, minlength=_NUM_GROUPS)
        positions, ends = self._next.tolist(), np.cumsum(counts).tolist()
        self._next += counts
        return [
            (at, start, end)
            for at, (start, end) in zip(positions, pairwise([0, *ends]), strict=True)
            if start < end
        ]


def _quantise(
    facts: PayloadFacts, payload: BinaryIO, files: ExitStack, folder: Path | None
) -> _RawBase:
    """The base of a payload: the scales of all rows first, for a row may be cut by blocks."""
    shapes, blocks = facts.shapes, value_blocks(facts.shapes)
    largest_R = np.zeros(_num_rows(shapes), np.float32)
    payload.seek(facts.data_at)
    for block in blocks:
        for piece, values in _read_pieces(payload, block):
            if piece.row is not None:
                row_largest = largest_R[piece.row : piece.row + piece.num_rows]
                np.maximum(row_largest, np.abs(values).max(axis=1), out=row_largest)
    scales_R = (largest_R / np.float32(_LEVELS)).astype(np.float32)
    divisors_R = np.where(scales_R > 0, scales_R, np.float32(1))
    codes, low, high = (files.enter_context(open_work(folder)) for _ in range(3))
    payload.seek(facts.data_at)
    for block in blocks:
        for piece, values in _read_pieces(payload, block):
            if piece.row is None:
                planes = _byte_planes(values.view(np.uint32))
                write_all(low, planes[2])
                write_all(high, planes[3])
                continue
            divisor = divisors_R[piece.row : piece.row + piece.num_rows, None]
            code = np.clip(np.rint(values / divisor), -_LEVELS, _LEVELS).astype(np.int8)
            write_all(codes, code.reshape(-1).view(np.uint8))
    return _RawBase(
        shapes=shapes, blocks=blocks, codes=codes, halves=[low, high], scales_R=scales_R
    )


def _read_base(
    base: PartFile, files: ExitStack, folder: Path | None, expected_shapes: Shapes | None
) -> tuple[str, _RawBase]:
    reader = PartReader(base, _BASE_MAGIC)
    architecture, shapes = _parse_header(reader.text())
    check_shapes(architecture, shapes, expected_shapes)
    payload_bytes_of(architecture, shapes)
    num_halves = sum(num_elements(shape) for shape in shapes.values() if len(shape) < 2)
    num_codes, num_rows = num_values(shapes) - num_halves, _num_rows(shapes)
    codes = reader.plane(num_codes, files.enter_context(open_work(folder)))
    scale_planes = [reader.plane(num_rows, BytesIO()) for _ in range(_NUM_PLANES)]
    halves = [reader.plane(num_halves, files.enter_context(open_work(folder))) for _ in range(2)]
    reader.finish()
    scales_R = _from_planes([read_at(plane, 0, num_rows) for plane in scale_planes])
    return architecture, _RawBase(
        shapes=shapes,
        blocks=value_blocks(shapes),
        codes=codes,
        halves=halves,
        scales_R=scales_R.view(np.float32),
    )


def _parse_header(text: bytes) -> tuple[str, dict[str, tuple[int, ...]]]:
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


def _in_memory(part: bytes) -> PartFile:
    return PartFile(file=BytesIO(part), num_bytes=len(part))


def _num_rows(shapes: Shapes) -> int:
    return sum(shape[0] for shape in shapes.values() if len(shape) >= 2)


def _starts(block: Block) -> Iterator[tuple[Piece, int]]:
    """Each piece of a block and where in the block it starts."""
    start = 0
    for piece in block:
        yield piece, start
        start += piece.size


def _read_pieces(payload: BinaryIO, block: Block) -> Iterator[tuple[Piece, FloatArray]]:
    """The next values of a payload, each piece's as a matrix of rows."""
    values_V = read_values(payload, sum(piece.size for piece in block))
    for piece, start in _starts(block):
        values = values_V[start : start + piece.size]
        yield piece, values.reshape(piece.num_rows, piece.num_columns)


def _check_bound(name: str, values: FloatArray, bound: float) -> None:
    if not bool((np.abs(values) <= bound).all()):  # false for NaN as well
        raise PayloadLimitError(f"base of tensor {name!r} holds NaN, infinity or beyond {bound:g}")


def _magnitudes(codes: npt.NDArray[np.int8]) -> ByteArray:
    """|code|, and 128 for -128, whose magnitude no int8 can hold."""
    return np.abs(codes).view(np.uint8)


def _ordered_bits(values: FloatArray) -> UInt32Array:
    """Bit patterns moved so that unsigned order is numeric order; -0.0 just below +0.0."""
    bits = values.view(np.uint32)
    return bits ^ ((values.view(np.int32) >> 31).view(np.uint32) | _SIGN)  # ~bits below zero


def _unordered_bits(ordered: UInt32Array) -> FloatArray:
    """The values of ``_ordered_bits``."""
    return (ordered ^ ((~(ordered.view(np.int32) >> 31)).view(np.uint32) | _SIGN)).view(np.float32)


def _byte_planes(words: UInt32Array) -> list[ByteArray]:
    """Byte planes of words, least significant first: noise apart from what compresses."""
    return [(words >> np.uint32(8 * plane)).astype(np.uint8) for plane in range(_NUM_PLANES)]


def _from_planes(planes: list[ByteArray]) -> UInt32Array:
    """The words of ``_byte_planes``."""
    return np.stack(planes, axis=1).reshape(-1).view("<u4").astype(np.uint32, copy=False)
