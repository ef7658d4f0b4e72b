"""A base as its unpacked sections in a working file: made from values, read back as predictions."""

# V values of one block

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO, Final

import numpy as np

from graft.core.records import FloatArray
from graft.wire.payload.encoding import MAX_MAGNITUDE, Shapes, num_elements
from graft.wire.payload.parts import (
    HALF_GROUP,
    LEVELS,
    ByteArray,
    byte_planes,
    check_bound,
    from_planes,
)
from graft.wire.payload.payload_file import BLOCK_VALUES, read_values
from graft.wire.payload.regions import Region, cut_regions

_NUM_GROUPS: Final = HALF_GROUP + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RawBase:
    """A base's sections, unpacked: codes, scale planes, the upper planes of the vectors."""

    shapes: dict[str, tuple[int, ...]]
    codes: Region
    scales: list[Region]
    halves: list[Region]

    @property
    def sections(self) -> tuple[Region, ...]:
        """In the order of the format."""
        return (self.codes, *self.scales, *self.halves)


def raw_base(file: BinaryIO, shapes: Shapes) -> RawBase:
    """The sections of these shapes, one behind the other in ``file``, yet to be filled."""
    matrices = [shape for shape in shapes.values() if len(shape) >= 2]
    num_rows = sum(shape[0] for shape in matrices)
    num_halves = sum(num_elements(shape) for shape in shapes.values() if len(shape) < 2)
    codes, *rest = cut_regions(
        file, sum(map(num_elements, matrices)), *[num_rows] * 4, *[num_halves] * 2
    )
    return RawBase(shapes=dict(shapes), codes=codes, scales=rest[:4], halves=rest[4:])


def quantise(payload: BinaryIO, raw: RawBase) -> None:
    """Codes, scales and halves of the values that ``payload`` stands at."""
    at_row = at_code = at_half = 0
    for shape in raw.shapes.values():
        if len(shape) < 2:
            for start, count in _pieces(num_elements(shape)):
                planes = byte_planes(read_values(payload, count).view(np.uint32))
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
            scale = (largest / np.float32(LEVELS)).astype(np.float32)
            _write_planes(raw.scales, at_row + row, byte_planes(scale.view(np.uint32)))
            divisor = np.where(scale > 0, scale, np.float32(1))[:, None]
            payload.seek(place)
            for _, count in _pieces(width, rows):
                values = read_values(payload, rows * count).reshape(rows, count)
                code = np.clip(np.rint(values / divisor), -LEVELS, LEVELS).astype(np.int8)
                raw.codes.write(at_code, code.reshape(-1).view(np.uint8))
                at_code += code.size
        at_row += num_rows


def predicted_blocks(raw: RawBase) -> Iterator[tuple[str, FloatArray, ByteArray]]:
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
                check_bound(name, half_V, MAX_MAGNITUDE)
                yield name, half_V, np.full(count, HALF_GROUP, np.uint8)
            at_half += size
            continue
        width = size // shape[0]
        for start, count in _pieces(size):
            first, last = start // width, (start + count - 1) // width
            scale = from_planes(
                [p.read(at_row + first, last + 1 - first).tobytes() for p in raw.scales]
            ).view(np.float32)
            check_bound(name, scale, MAX_MAGNITUDE / (LEVELS - 1))
            code_V = raw.codes.read(at_code + start, count).view(np.int8)
            row_V = np.arange(start, start + count) // width - first
            group_V = np.abs(code_V.astype(np.int16)).astype(np.uint8)
            yield name, code_V.astype(np.float32) * scale[row_V], group_V
        at_row, at_code = at_row + shape[0], at_code + size


class Places:
    """Where in a plane the next values of each group go."""

    def __init__(self, raw: RawBase) -> None:
        counts = np.zeros(_NUM_GROUPS, np.int64)
        for block in raw.codes.blocks():
            group = np.abs(block.view(np.int8).astype(np.int16))
            counts += np.bincount(group, minlength=_NUM_GROUPS)
        counts[HALF_GROUP] += raw.halves[0].num_bytes
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
