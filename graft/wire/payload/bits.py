"""Values of a block as codes, ordered bit patterns and byte planes.

Legend: V values of one block.
"""

from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from graft.core.payload import read_values
from graft.core.records import FloatArray
from graft.core.tensor_types import (
    DTYPES,
    FLOAT_DTYPES,
    Shapes,
    dtype_name,
    from_float,
    tensor_bytes,
    to_float,
)
from graft.errors import PayloadLimitError
from graft.wire.payload.blocks import Block, ByteArray, Piece

LEVELS: Final = 127
NUM_PLANES: Final = 4
_SIGN: Final = np.uint32(0x80000000)
_SIGN_16: Final = np.uint16(0x8000)
UInt32Array = npt.NDArray[np.uint32]


def rounded(values: FloatArray, dtype: str) -> FloatArray:
    return values if dtype == "F32" else to_float(from_float(values, dtype), dtype)


def starts(block: Block) -> Iterator[tuple[Piece, int]]:
    """Each piece of a block and where in the block it starts."""
    start = 0
    for piece in block:
        yield piece, start
        start += piece.size


def read_pieces(payload: BinaryIO, block: Block) -> Iterator[tuple[Piece, FloatArray]]:
    """The next values of a payload, each piece's as a matrix of rows."""
    values_V = read_block(payload, block)
    for piece, start in starts(block):
        values = values_V[start : start + piece.size]
        yield piece, values.reshape(piece.num_rows, piece.num_columns)


def read_block(payload: BinaryIO, block: Block) -> FloatArray:
    """The next values of a payload, as float32."""
    if all(piece.dtype == "F32" for piece in block):
        return read_values(payload, sum(piece.size for piece in block))
    pieces = (to_float(read_values(payload, p.size, p.dtype), p.dtype) for p in block)
    return np.concatenate(list(pieces))


def check_bound(name: str, values: FloatArray, bound: float) -> None:
    if not bool((np.abs(values) <= bound).all()):  # false for NaN as well
        raise PayloadLimitError(f"base of tensor {name!r} holds NaN, infinity or beyond {bound:g}")


def magnitudes(codes: npt.NDArray[np.int8]) -> ByteArray:
    """|code|, and 128 for -128, whose magnitude no int8 can hold."""
    return np.abs(codes).view(np.uint8)


def ordered_bits(values: FloatArray, block: Block) -> UInt32Array:
    """Bit patterns moved so that unsigned order is numeric order; -0.0 just below +0.0.

    Those of half types are as long as the type is.
    """
    bits = values.view(np.uint32)
    words: UInt32Array = bits ^ ((values.view(np.int32) >> 31).view(np.uint32) | _SIGN)
    for piece, start in starts(block):
        if piece.dtype != "F32":
            into = slice(start, start + piece.size)
            short = from_float(values[into], piece.dtype).view(np.uint16)
            words[into] = short ^ ((short.view(np.int16) >> 15).view(np.uint16) | _SIGN_16)
    return words


def unordered_bits(ordered: UInt32Array, block: Block) -> FloatArray:
    """The values of ``ordered_bits``."""
    bits = ordered ^ ((~(ordered.view(np.int32) >> 31)).view(np.uint32) | _SIGN)
    values: FloatArray = bits.view(np.float32)
    for piece, start in starts(block):
        if piece.dtype != "F32":
            into = slice(start, start + piece.size)
            short = ordered[into].astype(np.uint16)
            short ^= (~(short.view(np.int16) >> 15)).view(np.uint16) | _SIGN_16
            values[into] = to_float(short.view(DTYPES[piece.dtype]), piece.dtype)
    return values


def byte_planes(words: UInt32Array) -> list[ByteArray]:
    """Byte planes of words, least significant first: noise apart from what compresses."""
    return [(words >> np.uint32(8 * plane)).astype(np.uint8) for plane in range(NUM_PLANES)]


def from_planes(planes: list[ByteArray]) -> UInt32Array:
    """The words of ``byte_planes``."""
    return np.stack(planes, axis=1).reshape(-1).view("<u4").astype(np.uint32, copy=False)


def float_shapes(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if dtype_name(shape) in FLOAT_DTYPES}


def integer_names(shapes: Shapes, *, first: bool) -> list[str]:
    """Tensors of integers that come before the first of floats, or after the last."""
    wide = [DTYPES[dtype_name(shape)].itemsize >= 4 for shape in shapes.values()]
    floats = float_shapes(shapes)
    return [
        name
        for name, is_wide in zip(shapes, wide, strict=True)
        if name not in floats and is_wide == first
    ]


def float_start(shapes: Shapes) -> int:
    """Where the first tensor of floats lies behind the first tensor."""
    return sum(tensor_bytes(shapes[name]) for name in integer_names(shapes, first=True))


def count_rows(shapes: Shapes) -> int:
    return sum(shape[0] for shape in shapes.values() if len(shape) >= 2)
