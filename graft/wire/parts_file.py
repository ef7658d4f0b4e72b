"""Splitting and joining payload files with a block of values in memory, whatever their size.

The parts are those of ``parts``, to the byte. What the format orders as a whole (planes behind one
another, distances by their group) lies in nameless working files: of a base its sections, of a
residual its four planes. Every value's place in a plane follows from counting its group first.
"""

# V values of one block

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from graft.values import FloatArray
from graft.wire.parts import (
    _BASE_MAGIC,
    _HALF_GROUP,
    _LEVELS,
    _NUM_PLANES,
    _RESIDUAL_MAGIC,
    ByteArray,
    _check_bound,
    _from_planes,
    _ordered,
    _parse_base_header,
    _planes,
    _unordered,
)
from graft.wire.parts import _pack as pack_bytes
from graft.wire.payload import MAX_MAGNITUDE, Shapes, check_shapes, num_elements
from graft.wire.payload_file import (
    BLOCK_VALUES,
    PayloadFacts,
    PayloadWriter,
    map_values,
    payload_bytes_of,
    read_values,
    value_blocks,
)
from graft.wire.regions import PartReader, Region, cut_regions, open_work, pack_region

_NUM_GROUPS: Final = _HALF_GROUP + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFile:
    """A part in a file that stands at its first byte."""

    file: BinaryIO
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _RawBase:
    """A base's sections, unpacked: codes, scale planes, the upper planes of the vectors."""

    shapes: dict[str, tuple[int, ...]]
    codes: Region
    scales: list[Region]
    halves: list[Region]


def split_file(
    facts: PayloadFacts, payload: BinaryIO, base: BinaryIO, residual: BinaryIO, folder: Path
) -> None:
    """Write both parts of a checked payload file; working files lie in ``folder``."""
    with open_work(folder) as raw_file, open_work(folder) as plane_file:
        raw = _raw_base(raw_file, facts.shapes)
        payload.seek(facts.data_at)
        _quantise(payload, raw)
        header = json.dumps([facts.architecture, facts.shapes], separators=(",", ":"))
        base.write(_BASE_MAGIC + pack_bytes(header.encode("ascii")))
        for region in (raw.codes, *raw.scales, *raw.halves):
            pack_region(region, base, folder)
        planes = cut_regions(plane_file, *[facts.num_values] * _NUM_PLANES)
        payload.seek(facts.data_at)
        places = _Places(raw)
        for (_, predicted_V, group_V), (_, true_V) in zip(
            _predicted(raw), value_blocks(payload, facts.shapes), strict=True
        ):
            order = np.argsort(group_V, kind="stable")
            distance = (_ordered(true_V) - _ordered(predicted_V))[order].view(np.int32)
            folded = ((distance << 1) ^ (distance >> 31)).view(np.uint32)
            columns = [np.frombuffer(plane, np.uint8) for plane in _planes(folded)]
            for at, start, end in places.runs(group_V):
                for plane, column in zip(planes, columns, strict=True):
                    plane.write(at, column[start:end])
        residual.write(_RESIDUAL_MAGIC)
        for plane in planes:
            pack_region(plane, residual, folder)
    base.flush()
    residual.flush()


def join_files(
    base: PartFile,
    residual: PartFile,
    sink: BinaryIO,
    folder: Path,
    expected_shapes: Shapes | None,
) -> PayloadFacts:
    """Write the exact payload that was split; the caller compares its id.

    Raises PayloadTruncatedError, PayloadChangedError or PayloadLimitError, and nothing else.
    """
    with open_work(folder) as raw_file, open_work(folder) as plane_file:
        architecture, raw = _unpack_base(base, raw_file, expected_shapes)
        writer = PayloadWriter(sink, architecture, raw.shapes)
        num_values = sum(map(num_elements, raw.shapes.values()))
        reader = PartReader(residual.file, residual.num_bytes, _RESIDUAL_MAGIC)
        planes = cut_regions(plane_file, *[num_values] * _NUM_PLANES)
        for plane in planes:
            reader.section(plane)
        reader.finish()
        places = _Places(raw)
        for name, predicted_V, group_V in _predicted(raw):
            runs = places.runs(group_V)
            folded = _from_planes(
                [
                    np.concatenate(
                        [plane.read(at, end - start) for at, start, end in runs]
                    ).tobytes()
                    for plane in planes
                ]
            )
            distance_V = np.empty_like(folded)
            distance_V[np.argsort(group_V, kind="stable")] = (folded >> 1) ^ (
                np.uint32(0) - (folded & 1)
            )
            writer.append(name, _unordered(_ordered(predicted_V) + distance_V))
        return writer.finish()


def read_base(
    base: PartFile, sink: BinaryIO, folder: Path, expected_shapes: Shapes | None
) -> tuple[str, dict[str, FloatArray]]:
    """What ``decode_base`` gives, its values written to ``sink`` and mapped from there."""
    with open_work(folder) as raw_file:
        architecture, raw = _unpack_base(base, raw_file, expected_shapes)
        for _, predicted_V, _ in _predicted(raw):
            sink.write(predicted_V.astype("<f4", copy=False).data.cast("B"))
    sink.flush()
    return architecture, map_values(sink, raw.shapes, 0)


def read_base_head(base: PartFile) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Architecture and shapes that a base claims, before any tensor is inflated."""
    return _parse_base_header(PartReader(base.file, base.num_bytes, _BASE_MAGIC).header())


def _raw_base(file: BinaryIO, shapes: Shapes) -> _RawBase:
    matrices = [shape for shape in shapes.values() if len(shape) >= 2]
    num_rows = sum(shape[0] for shape in matrices)
    num_halves = sum(num_elements(shape) for shape in shapes.values() if len(shape) < 2)
    codes, *rest = cut_regions(
        file, sum(map(num_elements, matrices)), *[num_rows] * 4, *[num_halves] * 2
    )
    return _RawBase(shapes=dict(shapes), codes=codes, scales=rest[:4], halves=rest[4:])


def _unpack_base(
    base: PartFile, file: BinaryIO, expected_shapes: Shapes | None
) -> tuple[str, _RawBase]:
    reader = PartReader(base.file, base.num_bytes, _BASE_MAGIC)
    architecture, shapes = _parse_base_header(reader.header())
    check_shapes(architecture, shapes, expected_shapes)
    payload_bytes_of(architecture, shapes)
    raw = _raw_base(file, shapes)
    for region in (raw.codes, *raw.scales, *raw.halves):
        reader.section(region)
    reader.finish()
    return architecture, raw


def _quantise(payload: BinaryIO, raw: _RawBase) -> None:
    """Codes, scales and halves of the values that ``payload`` stands at."""
    at_row = at_code = at_half = 0
    for shape in raw.shapes.values():
        if len(shape) < 2:
            for start, count in _pieces(num_elements(shape)):
                planes = _planes(read_values(payload, count).view(np.uint32))
                _write_planes(raw.halves, at_half + start, planes[2:])
            at_half += num_elements(shape)
            continue
        num_rows, width = shape[0], num_elements(shape[1:])
        for row, rows in _pieces(num_rows, width):
            place = payload.tell()
            largest = np.zeros(rows, np.float32)
            for _, count in _pieces(width, rows):  # one piece, unless one row is beyond a block
                values = read_values(payload, rows * count).reshape(rows, count)
                np.maximum(largest, np.abs(values).max(axis=1), out=largest)
            scale = (largest / np.float32(_LEVELS)).astype(np.float32)
            _write_planes(raw.scales, at_row + row, _planes(scale.view(np.uint32)))
            divisor = np.where(scale > 0, scale, np.float32(1))[:, None]
            payload.seek(place)
            for _, count in _pieces(width, rows):
                values = read_values(payload, rows * count).reshape(rows, count)
                code = np.clip(np.rint(values / divisor), -_LEVELS, _LEVELS).astype(np.int8)
                raw.codes.write(at_code, code.reshape(-1).view(np.uint8))
                at_code += code.size
        at_row += num_rows


def _predicted(raw: _RawBase) -> Iterator[tuple[str, FloatArray, ByteArray]]:
    """Name, predicted values and groups, in the very blocks of ``value_blocks``."""
    at_row = at_code = at_half = 0
    for name, shape in raw.shapes.items():
        size = num_elements(shape)
        if len(shape) < 2:
            for start, count in _pieces(size):
                low, high = (
                    plane.read(at_half + start, count).astype(np.uint32) for plane in raw.halves
                )
                half_V = ((low << 16) | (high << 24)).view(np.float32)
                _check_bound(name, half_V, MAX_MAGNITUDE)
                yield name, half_V, np.full(count, _HALF_GROUP, np.uint8)
            at_half += size
            continue
        width = size // shape[0]
        for start, count in _pieces(size):
            first, last = start // width, (start + count - 1) // width
            scale = _from_planes(
                [p.read(at_row + first, last + 1 - first).tobytes() for p in raw.scales]
            ).view(np.float32)
            _check_bound(name, scale, MAX_MAGNITUDE / (_LEVELS - 1))
            code_V = raw.codes.read(at_code + start, count).view(np.int8)
            row_V = np.arange(start, start + count) // width - first
            group_V = np.abs(code_V.astype(np.int16)).astype(np.uint8)
            yield name, code_V.astype(np.float32) * scale[row_V], group_V
        at_row, at_code = at_row + shape[0], at_code + size


class _Places:
    """Where in a plane the next values of each group go."""

    def __init__(self, raw: _RawBase) -> None:
        counts = np.zeros(_NUM_GROUPS, np.int64)
        for block in raw.codes.blocks():
            group = np.abs(block.view(np.int8).astype(np.int16))
            counts += np.bincount(group, minlength=_NUM_GROUPS)
        counts[_HALF_GROUP] += raw.halves[0].num_bytes
        self._next = np.cumsum(counts) - counts

    def runs(self, group_V: ByteArray) -> list[tuple[int, int, int]]:
        """(place in the plane, start, end) of each group's run in a block sorted by group."""
        counts = np.bincount(group_V, minlength=_NUM_GROUPS)
        bounds = [0, *np.cumsum(counts).tolist()]
        places = self._next.tolist()
        self._next += counts
        return [
            (at, start, end)
            for at, (start, end) in zip(places, pairwise(bounds), strict=True)
            if end > start
        ]


def _write_planes(regions: list[Region], at: int, planes: list[bytes]) -> None:
    for region, plane in zip(regions, planes, strict=True):
        region.write(at, plane)


def _pieces(size: int, times: int = 1) -> Iterator[tuple[int, int]]:
    """(start, count) of pieces of ``size``, each at most a block when taken ``times`` over."""
    step = max(1, BLOCK_VALUES // times)
    for start in range(0, size, step):
        yield start, min(step, size - start)
