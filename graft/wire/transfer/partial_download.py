"""A part that is being received, on disk as it comes, so that a killed process loses nothing."""

import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from graft.core.files import make_folder
from graft.wire.payload.blocks import COPY_BYTES, PartFile, write_all

DIGEST_BYTES: Final = 32
_RECORD: Final = struct.Struct("<QI")  # length and CRC-32 of an append; length 0: all is recorded


class PartialDownload(Protocol):
    """A part that is being received."""

    @property
    def num_bytes(self) -> int:
        """Bytes received so far, from the part's start on."""
        ...

    @property
    def unrecorded_bytes(self) -> int:
        """How many of them have no ledger row, because the process was killed before."""
        ...

    def append(self, data: bytes) -> None: ...

    def mark_recorded(self) -> None:
        """All that was received so far has its ledger row."""
        ...

    def keep(self) -> PartFile:
        """The part is whole: cache it, and return it to be read."""
        ...

    def close(self) -> None:
        """Leave what was received for a later process."""
        ...


class WorkPartial:
    """A download in a working file that goes with its process; ``put`` caches the whole part."""

    unrecorded_bytes = 0

    def __init__(self, file: BinaryIO, put: Callable[[bytes], None] | None = None) -> None:
        self._file = file
        self._put = put
        self.num_bytes = 0

    def append(self, data: bytes) -> None:
        write_all(self._file, data)
        self.num_bytes += len(data)

    def mark_recorded(self) -> None:
        pass

    def keep(self) -> PartFile:
        self._file.seek(0)
        if self._put is not None:
            self._put(self._file.read())
            self._file.seek(0)
        return PartFile(file=self._file, num_bytes=self.num_bytes)

    def close(self) -> None:
        pass  # the file is read after ``keep``; otherwise it goes with its last reference


class FilePartial:
    """A download in a file that a later process continues.

    Beside the file ``path`` lies a log of the length and checksum of every append. Opening reads
    both and cuts off what the log does not vouch for: a torn end, or all after a damaged byte.
    ``keep`` moves the part to ``target``, its SHA-256 appended. One process at a time.
    """

    def __init__(self, path: Path, log: Path, target: Path) -> None:
        make_folder(path.parent, private=True)
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
        write_all(self._data, data)
        write_all(self._log, _RECORD.pack(len(data), zlib.crc32(data)))
        self._num_bytes += len(data)

    def mark_recorded(self) -> None:
        if self.unrecorded_bytes:
            write_all(self._log, _RECORD.pack(0, 0))
            self._recorded = self._num_bytes

    def keep(self) -> PartFile:
        write_all(self._data, self._digest.digest())
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
        """Count the next ``length`` bytes of the file, where they are what was appended."""
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
    """Open for reading and appending, unbuffered, readable by its owner alone."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return os.fdopen(handle, "r+b", buffering=0)
