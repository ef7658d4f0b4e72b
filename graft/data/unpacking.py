"""What an archive may hold: limits on members and unpacked bytes, checked before and while it is
unpacked."""

import zipfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from graft.errors import DatasetFormatError

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class UnpackLimits:
    """``num_bytes`` and ``members`` in all; beyond ``free_bytes``, ``ratio`` times the packed size
    at most: recordings shrink to a tenth, an archive that is made to fill a disk to a thousandth.
    """

    num_bytes: int
    members: int
    free_bytes: int = 1 << 28
    ratio: int = 100

    def check(self, label: str, unpacked: int, packed: int) -> None:
        """Raise DatasetFormatError for more bytes than may be unpacked of ``packed`` ones."""
        most = min(self.num_bytes, max(self.free_bytes, self.ratio * packed))
        if unpacked > most:
            raise DatasetFormatError(
                f"{label}: got {unpacked} bytes unpacked of {packed}, wanted at most {most}"
            )

    def check_members(self, label: str, members: int) -> None:
        """Raise DatasetFormatError for more members than an archive may have."""
        if members > self.members:
            raise DatasetFormatError(
                f"{label}: got {members} members, wanted at most {self.members}"
            )


ORIGINALS_LIMITS = UnpackLimits(num_bytes=1 << 36, members=1 << 18)
DOMAIN_LIMITS = UnpackLimits(num_bytes=1 << 34, members=16)


def check_zip(label: str, archive: zipfile.ZipFile, limits: UnpackLimits) -> None:
    """Check an archive's directory, which the reading of a member cannot exceed.

    Raises DatasetFormatError for too many members or bytes, or two members of one name.
    """
    entries = archive.infolist()
    limits.check_members(label, len(entries))
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise DatasetFormatError(f"{label}: got two members of one name, wanted one of each")
    packed = sum(entry.compress_size for entry in entries)
    limits.check(label, sum(entry.file_size for entry in entries), packed)


def copy_limited(
    label: str, packed: IO[bytes], plain: IO[bytes], packed_bytes: int, limits: UnpackLimits
) -> None:
    """Unpack a stream; raises DatasetFormatError as soon as it gives more than it may."""
    done = 0
    while chunk := packed.read(_CHUNK_BYTES):
        done += len(chunk)
        limits.check(label, done, packed_bytes)
        plain.write(chunk)


def check_array_header(label: str, file: IO[bytes], file_bytes: int) -> None:
    """Check that an ``.npy`` file is as long as the shape that it states, before memory is taken.

    Raises DatasetFormatError where it is not, ValueError where it has no such header.
    """
    version = np.lib.format.read_magic(file)
    read: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"version {version}")
    shape, _, dtype = read(file)
    stated = dtype.itemsize
    for size in shape:  # Python's integers do not overflow
        stated *= size
    if not dtype.hasobject and stated != file_bytes - file.tell():
        raise DatasetFormatError(
            f"{label}: got {file_bytes - file.tell()} bytes of an array of {shape} {dtype}, "
            f"wanted {stated}"
        )
