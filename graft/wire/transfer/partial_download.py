"""A part on its way in: kept as it comes, so that a killed process loses none of it."""

import hashlib
import os
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from graft.wire.payload.parts_file import PartFile
from graft.wire.payload.regions import COPY_BYTES

DIGEST_BYTES: Final = 32
_RECORD: Final = struct.Struct("<QI")  # length and CRC-32 of an append; length 0: all is recorded


class PartialDownload(Protocol):
    """A part that is being received."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the part held so far, from its start on."""
        ...

    @property
    def unrecorded_bytes(self) -> int:
        """How many of them no ledger row tells of, because the process was killed before."""
        ...

    def append(self, data: bytes) -> None: ...

    def mark_recorded(self) -> None:
        """The ledger tells of all that came so far."""
        ...

    def keep(self) -> PartFile:
        """The part is whole: hand it to the cache, and out to be read."""
        ...

    def close(self) -> None:
        """Leave what came for another time."""
        ...


class MemoryPartial:
    """An arrival that goes with its process."""

    unrecorded_bytes = 0

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def num_bytes(self) -> int:
        return len(self._data)

    def append(self, data: bytes) -> None:
        self._data += data

    def mark_recorded(self) -> None:
        pass

    def keep(self) -> PartFile:
        return PartFile(file=BytesIO(self._data), num_bytes=len(self._data))

    def content(self) -> bytes:
        return bytes(self._data)

    def close(self) -> None:
        pass


class SpooledPartial:
    """An arrival in a nameless working file, for a part that a cache has no room to keep."""

    unrecorded_bytes = 0

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def append(self, data: bytes) -> None:
        self._num_bytes += self._file.write(data)

    def mark_recorded(self) -> None:
        pass

    def keep(self) -> PartFile:
        self._file.seek(0)
        return PartFile(file=self._file, num_bytes=self._num_bytes)

    def close(self) -> None:
        pass  # kept, it is read on; else it goes with its last reference


class FilePartial:
    """An arrival in a file that a later process goes on with.

    Beside the file ``path`` lies a log of the length and checksum of every append. Opening reads
    both and cuts off what the log does not vouch for: a torn end, or all behind a damaged place.
    Kept, the part lies in ``target`` with its SHA-256 behind it. One process at a time.
    """

    def __init__(self, path: Path, log: Path, target: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._log_path, self._target = path, log, target
        self._data = _open_private(path)
        self._log = _open_private(log)
        self._digest = hashlib.sha256()
        self._num_bytes = self._recorded = 0
        self._resume()

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    @property
    def unrecorded_bytes(self) -> int:
        return self._num_bytes - self._recorded

    def append(self, data: bytes) -> None:
        if not data:
            return
        self._digest.update(data)
        _write_all(self._data, data)
        _write_all(self._log, _RECORD.pack(len(data), zlib.crc32(data)))
        self._num_bytes += len(data)

    def mark_recorded(self) -> None:
        if self.unrecorded_bytes:
            _write_all(self._log, _RECORD.pack(0, 0))
            self._recorded = self._num_bytes

    def keep(self) -> PartFile:
        _write_all(self._data, self._digest.digest())
        os.replace(self._path, self._target)
        self._log_path.unlink(missing_ok=True)
        self.close()
        return PartFile(file=self._target.open("rb"), num_bytes=self._num_bytes)

    def close(self) -> None:
        self._data.close()
        self._log.close()

    def _resume(self) -> None:
        records = self._log.read()
        whole = 0
        for length, checksum in _RECORD.iter_unpack(
            records[: len(records) - len(records) % _RECORD.size]
        ):
            if length == 0:
                self._recorded = self._num_bytes
            elif not self._vouched(length, checksum):
                break
            whole += _RECORD.size
        for file, length in ((self._data, self._num_bytes), (self._log, whole)):
            if os.fstat(file.fileno()).st_size > length:  # an idle cut costs a flush on ext4
                file.truncate(length)
            file.seek(length)

    def _vouched(self, length: int, checksum: int) -> bool:
        """Take the next ``length`` bytes of the file in, where they are what was appended."""
        digest, got, left = self._digest.copy(), 0, length
        while left and (data := self._data.read(min(left, COPY_BYTES))):
            digest.update(data)
            got = zlib.crc32(data, got)
            left -= len(data)
        if left or got != checksum:
            return False
        self._digest, self._num_bytes = digest, self._num_bytes + length
        return True


def _open_private(path: Path) -> BinaryIO:
    """For reading and appending, unbuffered, made for its owner alone."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return os.fdopen(handle, "r+b", buffering=0)


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
