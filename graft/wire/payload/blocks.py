"""Blocks of a model's values, working files, and the sections of its parts.

A working file is a nameless file in a folder, or a ``BytesIO``: what works on one works on the
other, and holds one block of values in memory.
"""

import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from graft.core.files import make_folder
from graft.core.payload import BLOCK_VALUES, MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES
from graft.core.tensor_types import Shapes, data_bytes, dtype_name, num_elements
from graft.errors import (
    PayloadChangedError,
    PayloadLimitError,
    PayloadTruncatedError,
    TransportError,
)

COPY_BYTES: Final = 256 * 1024
IN_MEMORY_BYTES: Final = 16 * 1024 * 1024

_SECTION: Final = struct.Struct("<BI")  # mode, stored length
_STORED, _DEFLATED = 0, 1
# 256 times the chance that two bytes are equal: 1.006 to 1.03 for the noise in trained weights,
# 1.08 or more for all other planes. Deflate takes 0.3 % off the noise.
_NOISE: Final = 1.05

ByteArray = npt.NDArray[np.uint8]


def open_work(folder: Path | None) -> BinaryIO:
    """A working file: in memory without a ``folder``, else nameless, gone with its process."""
    if folder is None:
        return BytesIO()
    make_folder(folder, private=True)
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def work_folder(folder: Path | None, shapes: Shapes) -> Path | None:
    """``folder``, or None for a model so small that files would only make it slower."""
    return folder if data_bytes(shapes) >= IN_MEMORY_BYTES else None


def read_at(file: BinaryIO, at: int, count: int) -> ByteArray:
    """``count`` bytes of a working file from ``at`` on."""
    file.seek(at)
    data = file.read(count)
    if len(data) != count:
        raise TransportError(f"working file: {len(data)} bytes at {at}, wanted {count}")
    return np.frombuffer(data, np.uint8)


def write_all(file: BinaryIO, content: ByteArray | bytes) -> None:
    """Write all of ``content`` to a file that may be unbuffered."""
    view = memoryview(content)  # type: ignore[arg-type]
    while view:
        view = view[file.write(view) :]


# --- the values, block by block -----------------------------------------------------------------


class Piece(NamedTuple):
    """Whole rows of a matrix, or a stretch of one row; of a vector (``row`` None) a stretch.

    ``row`` counts the rows of all the model's matrices; a tensor's first axis is its rows.
    """

    name: str
    row: int | None
    num_rows: int
    num_columns: int
    size: int
    dtype: str


Block = list[Piece]


def value_blocks(shapes: Shapes) -> list[Block]:
    """The pieces of all tensors in order, in blocks of at most ``BLOCK_VALUES`` values.

    A row is cut only where it is longer than a block.
    """
    blocks: list[Block] = [[]]
    block_size = row_at = 0
    for name, shape in shapes.items():
        is_matrix = len(shape) >= 2
        num_rows = shape[0] if is_matrix else 1
        width = num_elements(shape) // num_rows
        for row in range(0, num_rows, step := max(1, BLOCK_VALUES // width)):
            for column in range(0, width, BLOCK_VALUES):
                rows, columns = min(step, num_rows - row), min(BLOCK_VALUES, width - column)
                if blocks[-1] and block_size + rows * columns > BLOCK_VALUES:
                    blocks.append([])
                    block_size = 0
                first = row_at + row if is_matrix else None
                size, dtype = rows * columns, dtype_name(shape)
                blocks[-1].append(Piece(name, first, rows, columns, size, dtype))
                block_size += rows * columns
        row_at += num_rows if is_matrix else 0
    return blocks


# --- sections: a mode byte, the stored length, the bytes, deflated or not ---------------------


def pack_text(text: bytes, sink: BinaryIO) -> None:
    """Write text as one section, deflated where that is shorter."""
    _pack(BytesIO(text), sink, zlib.Z_DEFAULT_STRATEGY)


def pack_plane(plane: BinaryIO, sink: BinaryIO) -> None:
    """Write a working file of bytes as one section: deflated where that is shorter, noise stored.

    The planes repeat nothing but runs of one byte: a search for longer matches takes five times
    as long and finds a thousandth.
    """
    counts = np.zeros(256, np.int64)
    for block in file_blocks(plane):
        counts += np.bincount(np.frombuffer(block, np.uint8), minlength=256)
    is_noise = 256 * int(counts @ counts) < _NOISE * int(counts.sum()) ** 2
    _pack(plane, sink, None if is_noise else zlib.Z_RLE)


def _pack(raw: BinaryIO, sink: BinaryIO, strategy: int | None) -> None:
    num_bytes, start = raw.seek(0, os.SEEK_END), sink.tell()
    if strategy is not None:
        write_all(sink, _SECTION.pack(_DEFLATED, 0))
        packer, packed_bytes = zlib.compressobj(6, zlib.DEFLATED, -15, 9, strategy), 0
        for block in file_blocks(raw):
            packed = packer.compress(block)
            write_all(sink, packed)
            packed_bytes += len(packed)
        packed = packer.flush()
        write_all(sink, packed)
        packed_bytes += len(packed)
        sink.seek(start)
        if packed_bytes < num_bytes:
            write_all(sink, _SECTION.pack(_DEFLATED, packed_bytes))
            sink.seek(0, os.SEEK_END)
            return
        sink.truncate()
    write_all(sink, _SECTION.pack(_STORED, num_bytes))
    for block in file_blocks(raw):
        write_all(sink, block)


def file_blocks(file: BinaryIO) -> Iterator[bytes]:
    """A working file from its start, at most ``COPY_BYTES`` at a time."""
    file.seek(0)
    while data := file.read(COPY_BYTES):
        yield data


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFile:
    """A part of ``num_bytes`` in a file that stands at its first byte."""

    file: BinaryIO
    num_bytes: int

    @classmethod
    def of(cls, part: bytes) -> "PartFile":
        """A part that is in memory."""
        return cls(file=BytesIO(part), num_bytes=len(part))


class PartReader:
    """Reads the sections of a part; no section may grow beyond what its header calls for.

    Raises PayloadTruncatedError, PayloadChangedError or PayloadLimitError, and nothing else.
    """

    def __init__(self, part: PartFile, magic: bytes) -> None:
        if part.num_bytes > MAX_PAYLOAD_BYTES:
            raise PayloadLimitError(f"part: {part.num_bytes} bytes, limit {MAX_PAYLOAD_BYTES}")
        self._part = part.file
        self._left = part.num_bytes
        if (got := self._take(len(magic))) != magic:
            raise PayloadChangedError(f"part starts {got!r}, wanted {magic!r}")

    def text(self) -> bytes:
        """The next section, of at most ``MAX_HEADER_BYTES`` bytes."""
        return b"".join(self._section(MAX_HEADER_BYTES))

    def plane(self, num_bytes: int, sink: BinaryIO) -> BinaryIO:
        """The next section, of exactly ``num_bytes`` bytes, written to ``sink``."""
        got = 0
        for raw in self._section(num_bytes):
            write_all(sink, raw)
            got += len(raw)
        if got != num_bytes:
            raise PayloadChangedError(f"section: got {got} bytes, wanted {num_bytes}")
        return sink

    def finish(self) -> None:
        """Refuse bytes after the last section."""
        if self._left:
            raise PayloadChangedError(f"part: {self._left} bytes too many")

    def _section(self, limit: int) -> Iterator[bytes]:
        mode, stored = _SECTION.unpack(self._take(_SECTION.size))
        if mode not in (_STORED, _DEFLATED):
            raise PayloadChangedError(f"section mode {mode} is unknown")
        if stored > self._left:
            raise PayloadTruncatedError(f"part: {self._left} bytes left, announces {stored}")
        unpacker = zlib.decompressobj(-15) if mode == _DEFLATED else None
        got = 0
        while stored:
            body = self._take(min(stored, COPY_BYTES))
            stored -= len(body)
            for raw in [body] if unpacker is None else _inflated(unpacker, body):
                got += len(raw)
                if got > limit:
                    raise PayloadLimitError(f"section grows beyond {limit} bytes")
                yield raw
        if unpacker is not None and (not unpacker.eof or unpacker.unused_data):
            raise PayloadChangedError("section is not one whole deflate stream")

    def _take(self, count: int) -> bytes:
        data = self._part.read(min(count, self._left))
        self._left -= len(data)
        if len(data) != count:
            raise PayloadTruncatedError(f"part ends {count - len(data)} bytes early")
        return data


def _inflated(unpacker: "zlib._Decompress", body: bytes) -> Iterator[bytes]:
    """What ``body`` brings out of the stream, at most ``COPY_BYTES`` at a time."""
    while True:
        try:
            raw = unpacker.decompress(body, COPY_BYTES)
        except zlib.error as error:
            raise PayloadChangedError(f"section cannot be inflated: {error}") from error
        yield raw
        body = unpacker.unconsumed_tail
        if not body and len(raw) < COPY_BYTES:
            return
