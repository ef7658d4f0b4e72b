"""A payload in two parts: an int8 base that is enough to probe, and the exact rest.

Base: tensors of two or more axes are quantised symmetrically, one float32 scale a row of the
first axis; vectors and scalars (biases, batch statistics) keep the upper half of each float32,
because a variance needs relative precision. Values of half types count as float32, their
predictions are rounded to the type; tensors of integers are whole in the base. Residual: the
distance between the bit patterns of the true value and of the base's prediction, on the line
where the type's bit patterns are in numeric order, so it is lossless for every pattern. Distances
are grouped by the magnitude of their int8 code, which both sides know and which predicts how long
a distance is.

Base: magic word, header, codes, 4 byte planes of the scales, upper 2 of the vectors, integers if
there are any. Residual: magic word, 4 byte planes of the distances. Source of the format: ours.

A model is worked on in blocks; codes and planes, which the format wants whole, lie in working
files, and each value's position in a plane follows from the sizes of the groups. In memory are a
block and the scales.

Legend: V values of one block, R rows of all matrices.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from graft.core.payload import (
    MAX_MAGNITUDE,
    PayloadFacts,
    PayloadWriter,
    check_payload,
    check_shapes,
    load_tensors,
    parse_shape,
    payload_bytes_of,
)
from graft.core.records import FloatArray
from graft.core.tensor_types import (
    DTYPES,
    Shapes,
    StoredArray,
    data_bytes,
    dtype_name,
    from_float,
    in_order,
    num_elements,
    num_values,
    tensor_bytes,
)
from graft.errors import PayloadChangedError, PayloadError
from graft.wire.payload.bits import (
    LEVELS,
    NUM_PLANES,
    byte_planes,
    check_bound,
    count_rows,
    float_shapes,
    float_start,
    from_planes,
    integer_names,
    magnitudes,
    ordered_bits,
    read_block,
    read_pieces,
    rounded,
    starts,
    unordered_bits,
)
from graft.wire.payload.blocks import (
    Block,
    ByteArray,
    PartFile,
    PartReader,
    file_blocks,
    open_work,
    pack_plane,
    pack_text,
    read_at,
    value_blocks,
    write_all,
)

_BASE_MAGIC: Final = b"GRB1"
_RESIDUAL_MAGIC: Final = b"GRR1"
_HALF_GROUP: Final = 128  # the group of half-precision values, after every |int8 code|
_NUM_GROUPS: Final = _HALF_GROUP + 1


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
    join_files(PartFile.of(base), PartFile.of(residual), sink, None, expected_shapes)
    return sink.getvalue()


def decode_base(
    base: bytes, expected_shapes: Shapes | None = None
) -> tuple[str, dict[str, StoredArray]]:
    """The architecture's name and its approximate parameters, each row within half its step.

    Raises PayloadTruncatedError, PayloadChangedError or PayloadLimitError, and nothing else.
    """
    return read_base(PartFile.of(base), None, expected_shapes)


def split_file(
    facts: PayloadFacts, payload: BinaryIO, base: BinaryIO, residual: BinaryIO, folder: Path | None
) -> None:
    """Write both parts of a checked payload to empty files.

    ``folder``: where working files lie (None: in memory).
    """
    with ExitStack() as files:
        raw = _quantise(facts, payload, files, folder)
        listed = {
            name: list(shape) if dtype_name(shape) == "F32" else [dtype_name(shape), *shape]
            for name, shape in facts.shapes.items()
        }
        header = json.dumps([facts.architecture, listed], separators=(",", ":"))
        write_all(base, _BASE_MAGIC)
        pack_text(header.encode("ascii"), base)
        scale_planes = [BytesIO(p.data) for p in byte_planes(raw.scales_R.view(np.uint32))]
        for plane in (raw.codes, *scale_planes, *raw.halves):
            pack_plane(plane, base)
        if raw.integers:
            pack_plane(BytesIO(b"".join(map(bytes, raw.integers.values()))), base)
        planes = [files.enter_context(open_work(folder)) for _ in range(NUM_PLANES)]
        payload.seek(facts.data_at + float_start(facts.shapes))
        positions = _GroupPositions(raw)
        for block, predicted_V, group_V in raw.predictions():
            true_V = read_block(payload, block)
            order = np.argsort(group_V, kind="stable")
            distance = ordered_bits(true_V, block) - ordered_bits(predicted_V, block)
            distance = distance[order].view(np.int32)
            folded = ((distance << 1) ^ (distance >> 31)).view(np.uint32)  # small either way
            runs = positions.runs(group_V)
            for plane, column in zip(planes, byte_planes(folded), strict=True):
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
        reader, count = PartReader(residual, _RESIDUAL_MAGIC), num_values(raw.floats)
        planes = [
            reader.plane(count, files.enter_context(open_work(folder))) for _ in range(NUM_PLANES)
        ]
        reader.finish()
        writer, positions = PayloadWriter(sink, architecture, raw.shapes), _GroupPositions(raw)
        for name in integer_names(raw.shapes, first=True):
            writer.append(name, raw.integers[name].view(DTYPES[dtype_name(raw.shapes[name])]))
        for block, predicted_V, group_V in raw.predictions():
            runs = positions.runs(group_V)
            folded = from_planes(
                [
                    np.concatenate([read_at(plane, at, end - start) for at, start, end in runs])
                    for plane in planes
                ]
            )
            distance_V = np.empty_like(folded)
            distance_V[np.argsort(group_V, kind="stable")] = (folded >> 1) ^ (
                np.uint32(0) - (folded & 1)
            )
            exact_V = unordered_bits(ordered_bits(predicted_V, block) + distance_V, block)
            for piece, start in starts(block):
                writer.append(piece.name, exact_V[start : start + piece.size])
        for name in integer_names(raw.shapes, first=False):
            writer.append(name, raw.integers[name].view(DTYPES[dtype_name(raw.shapes[name])]))
        return writer.finish()


def read_base(
    base: PartFile, folder: Path | None, expected_shapes: Shapes | None
) -> tuple[str, dict[str, StoredArray]]:
    """``decode_base`` of a file; with a ``folder`` the arrays are views of a working file."""
    with ExitStack() as files:
        architecture, raw = _read_base(base, files, folder, expected_shapes)
        sink = files.enter_context(open_work(folder))
        for name in integer_names(raw.shapes, first=True):
            write_all(sink, raw.integers[name])
        for block, predicted_V, _ in raw.predictions():
            for piece, start in starts(block):
                values = from_float(predicted_V[start : start + piece.size], piece.dtype)
                write_all(sink, values.view(np.uint8))
        for name in integer_names(raw.shapes, first=False):
            write_all(sink, raw.integers[name])
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
    integers: dict[str, ByteArray]

    @property
    def floats(self) -> Shapes:
        """The tensors that the base approximates."""
        return float_shapes(self.shapes)

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
            for piece, start in starts(block):
                into = slice(start, start + piece.size)
                if piece.row is None:
                    half = half_V[half_at : half_at + piece.size]
                    check_bound(piece.name, half, MAX_MAGNITUDE)
                    predicted_V[into], group_V[into] = rounded(half, piece.dtype), _HALF_GROUP
                    half_at += piece.size
                    continue
                code = code_V[code_at : code_at + piece.size]
                scale = self.scales_R[piece.row : piece.row + piece.num_rows]
                check_bound(piece.name, scale, MAX_MAGNITUDE / (LEVELS - 1))
                rows = code.reshape(piece.num_rows, piece.num_columns)
                np.multiply(rows, scale[:, None], out=predicted_V[into].reshape(rows.shape))
                if piece.dtype != "F32":
                    predicted_V[into] = rounded(predicted_V[into], piece.dtype)
                group_V[into] = magnitudes(code)
                code_at += piece.size
            yield block, predicted_V, group_V


class _GroupPositions:
    """Where in a plane the next values of each group belong."""

    def __init__(self, raw: _RawBase) -> None:
        self._num_values = num_values(raw.floats)
        counts = np.zeros(_NUM_GROUPS, np.int64)
        counts[_HALF_GROUP] = raw.halves[0].seek(0, os.SEEK_END)
        for code in file_blocks(raw.codes):
            group = magnitudes(np.frombuffer(code, np.int8))
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
    shapes, floats = facts.shapes, float_shapes(facts.shapes)
    blocks, floats_at = value_blocks(floats), facts.data_at + float_start(shapes)
    largest_R = np.zeros(count_rows(floats), np.float32)
    payload.seek(floats_at)
    for block in blocks:
        for piece, values in read_pieces(payload, block):
            if piece.row is not None:
                row_largest = largest_R[piece.row : piece.row + piece.num_rows]
                np.maximum(row_largest, np.abs(values).max(axis=1), out=row_largest)
    scales_R = (largest_R / np.float32(LEVELS)).astype(np.float32)
    divisors_R = np.where(scales_R > 0, scales_R, np.float32(1))
    codes, low, high = (files.enter_context(open_work(folder)) for _ in range(3))
    payload.seek(floats_at)
    for block in blocks:
        for piece, values in read_pieces(payload, block):
            if piece.row is None:
                planes = byte_planes(values.view(np.uint32))
                write_all(low, planes[2])
                write_all(high, planes[3])
                continue
            divisor = divisors_R[piece.row : piece.row + piece.num_rows, None]
            code = np.clip(np.rint(values / divisor), -LEVELS, LEVELS).astype(np.int8)
            write_all(codes, code.reshape(-1).view(np.uint8))
    integers, at = {}, facts.data_at
    for name, shape in shapes.items():
        if name not in floats:
            integers[name] = read_at(payload, at, tensor_bytes(shape))
        at += tensor_bytes(shape)
    return _RawBase(
        shapes=shapes, blocks=blocks, codes=codes, halves=[low, high], scales_R=scales_R,
        integers=integers,
    )  # fmt: skip


def _read_base(
    base: PartFile, files: ExitStack, folder: Path | None, expected_shapes: Shapes | None
) -> tuple[str, _RawBase]:
    reader = PartReader(base, _BASE_MAGIC)
    architecture, shapes = _parse_header(reader.text())
    check_shapes(architecture, shapes, expected_shapes)
    payload_bytes_of(architecture, shapes)
    floats = float_shapes(shapes)
    num_halves = sum(num_elements(shape) for shape in floats.values() if len(shape) < 2)
    num_codes, num_rows = num_values(floats) - num_halves, count_rows(floats)
    codes = reader.plane(num_codes, files.enter_context(open_work(folder)))
    scale_planes = [reader.plane(num_rows, BytesIO()) for _ in range(NUM_PLANES)]
    halves = [reader.plane(num_halves, files.enter_context(open_work(folder))) for _ in range(2)]
    integers, at = {}, 0
    if whole := {name: shape for name, shape in shapes.items() if name not in floats}:
        plane = reader.plane(data_bytes(whole), BytesIO())
        for name, shape in whole.items():
            integers[name] = read_at(plane, at, tensor_bytes(shape))
            at += tensor_bytes(shape)
    reader.finish()
    scales_R = from_planes([read_at(plane, 0, num_rows) for plane in scale_planes])
    return architecture, _RawBase(
        shapes=shapes,
        blocks=value_blocks(floats),
        codes=codes,
        halves=halves,
        scales_R=scales_R.view(np.float32),
        integers=integers,
    )


def _parse_header(text: bytes) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Architecture and shapes of a base's first section; raises PayloadChangedError."""
    try:
        architecture, listed = json.loads(text)
        shapes = {name: _parse_shape(name, listed_shape) for name, listed_shape in listed.items()}
    except PayloadError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PayloadChangedError(f"base header cannot be read: {error!r}") from error
    sizes = [size for shape in shapes.values() for size in shape]
    if not isinstance(architecture, str) or any(type(size) is not int for size in sizes):
        raise PayloadChangedError("base header: wanted a name and integer shapes")
    if list(shapes) != list(in_order(shapes)):
        raise PayloadChangedError("base header: tensors are not in order of their names")
    return architecture, shapes


def _parse_shape(name: str, listed: list[Any]) -> tuple[int, ...]:
    is_typed = bool(listed) and isinstance(listed[0], str)
    return parse_shape(name, *((listed[0], listed[1:]) if is_typed else ("F32", listed)))
