"""Sections of a payload's part: a mode byte, the stored length, the bytes, deflated or not."""

import struct
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

from graft.errors import PayloadChangedError, PayloadLimitError, PayloadTruncatedError
from graft.wire.payload.encoding import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES

SECTION: Final = struct.Struct("<BI")
STORED, DEFLATED = 0, 1
# Trained weights' noise comes to 1.006 to 1.03, all else to 1.08 or more; deflate takes 0.3 %
# off the noise.
_NOISE: Final = 1.05


def pack_text(raw: bytes) -> bytes:
    """One section of text: deflated where that is shorter."""
    return _section(raw, _deflate(raw, zlib.Z_DEFAULT_STRATEGY))


def pack_plane(raw: bytes) -> bytes:
    """One section of a byte plane: deflated where that is shorter, noise as it is.

    Planes repeat nothing but runs of one byte: looking for more takes five times as long and
    finds a thousandth.
    """
    counts = np.bincount(np.frombuffer(raw, np.uint8), minlength=256)
    return _section(raw, raw if is_noise(counts) else _deflate(raw, zlib.Z_RLE))


def _section(raw: bytes, packed: bytes) -> bytes:
    mode, body = (DEFLATED, packed) if len(packed) < len(raw) else (STORED, raw)
    return SECTION.pack(mode, len(body)) + body


def _deflate(raw: bytes, strategy: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15, 9, strategy)
    return packer.compress(raw) + packer.flush()


def is_noise(counts: npt.NDArray[np.int64]) -> bool:
    """Whether two of the bytes, so many of each value, are equal as rarely as random ones."""
    return 256 * int(counts @ counts) < _NOISE * int(counts.sum()) ** 2


class SectionReader:
    """Reads a part's sections; no section may grow beyond what its header calls for."""

    def __init__(self, part: bytes, magic: bytes) -> None:
        if len(part) > MAX_PAYLOAD_BYTES:
            raise PayloadLimitError(f"part: {len(part)} bytes, limit {MAX_PAYLOAD_BYTES}")
        if len(part) < len(magic):
            raise PayloadTruncatedError(f"part: {len(part)} bytes, shorter than its magic word")
        if part[: len(magic)] != magic:
            raise PayloadChangedError(f"part starts {part[: len(magic)]!r}, wanted {magic!r}")
        self._part = part
        self._at = len(magic)

    def section(self, wanted: int | None) -> bytes:
        """The next section, of exactly ``wanted`` bytes (None: a header, up to its limit)."""
        limit = MAX_HEADER_BYTES if wanted is None else wanted
        if len(self._part) < self._at + SECTION.size:
            raise PayloadTruncatedError(f"part ends at {len(self._part)}, inside a section head")
        mode, stored = SECTION.unpack_from(self._part, self._at)
        start = self._at + SECTION.size
        self._at = start + stored
        if len(self._part) < self._at:
            raise PayloadTruncatedError(f"part: {len(self._part)} bytes, announces {self._at}")
        body = self._part[start : self._at]
        if mode == DEFLATED:
            body = inflate(body, limit)
        elif mode != STORED:
            raise PayloadChangedError(f"section mode {mode} is unknown")
        if len(body) > limit or (wanted is not None and len(body) != wanted):
            raise PayloadChangedError(f"section: got {len(body)} bytes, wanted {limit}")
        return body

    def finish(self) -> None:
        """Refuse bytes behind the last section."""
        if self._at != len(self._part):
            raise PayloadChangedError(f"part: {len(self._part) - self._at} bytes too many")


def inflate(body: bytes, limit: int) -> bytes:
    """A deflated section; raises PayloadError where it is none, or grows beyond ``limit``."""
    unpacker = zlib.decompressobj(-15)
    try:
        raw = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise PayloadChangedError(f"section cannot be inflated: {error}") from error
    if len(raw) > limit:
        raise PayloadLimitError(f"section inflates beyond {limit} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise PayloadChangedError("section is not one whole deflate stream")
    return raw
