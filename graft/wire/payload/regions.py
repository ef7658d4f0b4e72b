"""Stretches of a working file, and the sections of a part that are packed from and into them."""

import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from graft.errors import (
    PayloadChangedError,
    PayloadLimitError,
    PayloadTruncatedError,
    TransportError,
)
from graft.wire.payload.encoding import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES
from graft.wire.payload.sections import DEFLATED, SECTION, STORED, inflate, is_noise

COPY_BYTES: Final = 256 * 1024

ByteArray = npt.NDArray[np.uint8]


def open_work(folder: Path) -> BinaryIO:
    """A nameless working file in ``folder``: it goes with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)


@dataclass(frozen=True, slots=True)
class Region:
    """``num_bytes`` of a working file from ``start`` on, read and written at any place."""

    file: BinaryIO
    start: int
    num_bytes: int

    def read(self, at: int, count: int) -> ByteArray:
        data = os.pread(self.file.fileno(), count, self.start + at)
        if len(data) != count:
            raise TransportError(f"working file: {len(data)} bytes at {at}, wanted {count}")
        return np.frombuffer(data, np.uint8)

    def write(self, at: int, content: ByteArray | bytes) -> None:
        view = memoryview(content)  # type: ignore[arg-type]
        while view:
            written = os.pwrite(self.file.fileno(), view, self.start + at)
            view, at = view[written:], at + written

    def blocks(self) -> Iterator[ByteArray]:
        for at in range(0, self.num_bytes, COPY_BYTES):
            yield self.read(at, min(COPY_BYTES, self.num_bytes - at))


def cut_regions(file: BinaryIO, *lengths: int) -> list[Region]:
    """Regions of these lengths, one behind the other from the file's start."""
    starts = np.cumsum([0, *lengths]).tolist()
    return [Region(file, start, length) for start, length in zip(starts, lengths, strict=False)]


def pack_region(region: Region, sink: BinaryIO, folder: Path) -> None:
    """Write a region as one section, in the form that ``split_payload`` gives the same bytes."""
    counts = np.zeros(256, np.int64)
    for block in region.blocks():
        counts += np.bincount(block, minlength=256)
    chosen, mode = region, STORED
    if not is_noise(counts):
        packed, num_bytes = open_work(folder), 0
        packer = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_RLE)
        for block in region.blocks():
            num_bytes += packed.write(packer.compress(block.data))
        num_bytes += packed.write(packer.flush())
        packed.flush()
        if num_bytes < region.num_bytes:
            chosen, mode = Region(packed, 0, num_bytes), DEFLATED
    sink.write(SECTION.pack(mode, chosen.num_bytes))
    for block in chosen.blocks():
        sink.write(block.data)


def _inflated(unpacker: "zlib._Decompress", body: bytes) -> Iterator[bytes]:
    """What ``body`` brings out of the stream, a bounded piece at a time."""
    while True:
        raw = unpacker.decompress(body, COPY_BYTES)
        yield raw
        body = unpacker.unconsumed_tail
        if not body and len(raw) < COPY_BYTES:
            return


class PartReader:
    """Reads a part's sections from a file that stands at its magic word.

    No section may grow beyond what its header calls for; raises as ``join_parts``.
    """

    def __init__(self, part: BinaryIO, num_bytes: int, magic: bytes) -> None:
        if num_bytes > MAX_PAYLOAD_BYTES:
            raise PayloadLimitError(f"part: {num_bytes} bytes, limit {MAX_PAYLOAD_BYTES}")
        self._part = part
        self._left = num_bytes
        if (got := self._take(len(magic))) != magic:
            raise PayloadChangedError(f"part starts {got!r}, wanted {magic!r}")

    def header(self) -> bytes:
        """The next section, small enough to hold."""
        mode, stored = self._head()
        if stored > MAX_HEADER_BYTES:
            raise PayloadChangedError(f"section: {stored} bytes, limit {MAX_HEADER_BYTES}")
        body = self._take(stored)
        return inflate(body, MAX_HEADER_BYTES) if mode == DEFLATED else body

    def section(self, into: Region) -> None:
        """The next section, of exactly the region's length, into the region."""
        mode, stored = self._head()
        unpacker = zlib.decompressobj(-15) if mode == DEFLATED else None
        at = 0
        try:
            while stored:
                body = self._take(min(stored, COPY_BYTES))
                stored -= len(body)
                for raw in [body] if unpacker is None else _inflated(unpacker, body):
                    if at + len(raw) > into.num_bytes:
                        raise PayloadLimitError(f"section grows beyond {into.num_bytes} bytes")
                    into.write(at, raw)
                    at += len(raw)
        except zlib.error as error:
            raise PayloadChangedError(f"section cannot be inflated: {error}") from error
        if unpacker is not None and (not unpacker.eof or unpacker.unused_data):
            raise PayloadChangedError("section is not one whole deflate stream")
        if at != into.num_bytes:
            raise PayloadChangedError(f"section: got {at} bytes, wanted {into.num_bytes}")

    def finish(self) -> None:
        """Refuse bytes behind the last section."""
        if self._left:
            raise PayloadChangedError(f"part: {self._left} bytes too many")

    def _head(self) -> tuple[int, int]:
        mode, stored = SECTION.unpack(self._take(SECTION.size))
        if mode not in (STORED, DEFLATED):
            raise PayloadChangedError(f"section mode {mode} is unknown")
        if stored > self._left:
            raise PayloadTruncatedError(f"part: {self._left} bytes left, announces {stored}")
        return mode, stored

    def _take(self, count: int) -> bytes:
        data = self._part.read(min(count, self._left))
        self._left -= len(data)
        if len(data) != count:
            raise PayloadTruncatedError(f"part ends {count - len(data)} bytes early")
        return data
