"""Downloads of public data sets' originals from their official addresses.

A download that breaks off resumes, which pooch does not do (docs/decisions.md).
"""

import functools
import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from graft.data.public.recordings import Download
from graft.data.public.registry import Progress, find_dataset
from graft.errors import ConfigError, DatasetFormatError, TransportError

_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchReport:
    """What ``fetch_dataset`` left in the folder.

    ``checked`` is what the bytes were compared with: the checksum "known" to graft, the one
    "recorded" at an earlier download, or "nothing" on the first download of a file whose checksum
    graft does not know. ``reused``: the file was there and was not downloaded again.
    """

    path: Path
    url: str
    num_bytes: int
    sha256: str
    licence: str
    checked: Literal["known", "recorded", "nothing"]
    reused: bool


def find_download(name: str) -> Download:
    """Where the public data set ``name`` is downloaded from; raises ConfigError if unknown, and
    where its originals have no address of one file."""
    description = find_dataset(name)
    if description.download is None:
        raise ConfigError(
            f"data set: got {name!r}, which has no address of one file; see "
            f"{description.source_url}"
        )
    return description.download


def fetch_dataset(
    name: str,
    out_dir: Path,
    progress: Progress | None = None,
    *,
    download: Download | None = None,
    attempts: int = 5,
    timeout_s: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
) -> FetchReport:
    """Download the originals of a public data set, or check the file that is there already.

    Two of the five checksums are known to graft. For the other three the first download cannot be
    checked: its SHA-256 is recorded in ``<file>.sha256``, and later calls compare with that.
    An interrupted download stays as ``<file>.partial`` and is resumed where the server allows it.

    Parameters
    ----------
    name
        Of the data set.
    out_dir
        Folder for the archive.
    progress
        Called with the file's name, the bytes received and the bytes in all (0: not stated).
    download
        Replaces the official address, for a mirror.
    attempts, timeout_s, sleep
        Connections at most, and how to wait between them.

    Raises
    ------
    ConfigError
        There is no such data set, or the address is not http or https.
    TransportError
        The server refused, or the connection broke ``attempts`` times.
    DatasetFormatError
        The bytes are not those of the known or recorded checksum.
    """
    licence = find_dataset(name).licence
    wanted_file = download or find_download(name)
    if not wanted_file.url.startswith(("https://", "http://")):
        raise ConfigError(f"address: got {wanted_file.url!r}, wanted http:// or https://")
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / wanted_file.file_name
    reused = path.exists()
    received = path
    if not reused:
        partial = _Partial(path.with_name(path.name + ".partial"))
        on_bytes = functools.partial(progress or (lambda *_: None), path.name)
        partial.complete(wanted_file.url, on_bytes, attempts, timeout_s, sleep)
        received = partial.path
    with received.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    record = path.with_name(path.name + ".sha256")
    wanted, checked = _wanted_checksum(wanted_file, record)
    if wanted is not None and sha256 != wanted:
        if not reused:
            # Left there, it would be taken for the first part of the right file.
            received.unlink()
        raise DatasetFormatError(
            f"{path}: got bytes of SHA-256 {sha256}, wanted {wanted} ({checked}); if the data set "
            f"was published anew, remove {record.name if checked == 'recorded' else path.name} "
            "and fetch again"
        )
    if not reused:
        received.replace(path)
    if wanted is None:
        record.write_text(f"{sha256}  {path.name}\n", encoding="ascii")
    return FetchReport(
        path=path,
        url=wanted_file.url,
        num_bytes=path.stat().st_size,
        sha256=sha256,
        licence=licence,
        checked=checked,
        reused=reused,
    )


def _wanted_checksum(
    download: Download, record: Path
) -> tuple[str | None, Literal["known", "recorded", "nothing"]]:
    if download.sha256 is not None:
        return download.sha256, "known"
    if record.exists():
        return record.read_text(encoding="ascii").split(maxsplit=1)[0], "recorded"
    return None, "nothing"


class _Partial:
    """The part of a file that has been received, and the server's version of that file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = path.with_name(path.name + ".version")

    def complete(
        self,
        url: str,
        on_bytes: Callable[[int, int], None],
        attempts: int,
        timeout_s: float,
        sleep: Callable[[float], None],
    ) -> None:
        """Receive all of ``url``, from where an earlier attempt ended."""
        for attempt in range(attempts):
            try:
                self._receive(url, on_bytes, timeout_s)
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in (408, 416, 429):
                    raise TransportError(
                        f"{url}: got HTTP {error.code}, wanted the file"
                    ) from error
                if error.code == 416:
                    # The part is longer than the server's file, so it is another file's.
                    self._discard()
                reason: Exception = error
            except (OSError, http.client.HTTPException) as error:
                reason = error
            else:
                self._version.unlink(missing_ok=True)
                return
            if attempt + 1 < attempts:
                sleep(float(2**attempt))
        raise TransportError(
            f"{url}: the connection broke {attempts} times, last: {reason}; "
            f"the part that arrived is kept as {self.path.name}"
        ) from reason

    def _receive(self, url: str, on_bytes: Callable[[int, int], None], timeout_s: float) -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "graft"})  # noqa: S310
        size = self.path.stat().st_size if self.path.exists() else 0
        version = self._version.read_text("latin-1") if self._version.exists() else ""
        # Without a version the server cannot tell whether its file is still the same one, and
        # two halves of different files would be joined.
        if size and version:
            request.add_header("Range", f"bytes={size}-")
            request.add_header("If-Range", version)
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            resumed = response.status == 206
            sent_range = response.headers.get("Content-Range") or ""
            if resumed and not sent_range.startswith(f"bytes {size}-"):
                self._discard()
                raise http.client.HTTPException("the server sent another range than was asked for")
            done = size if resumed else 0
            length = response.headers.get("Content-Length")
            total = done + int(length) if length is not None else 0
            self._version.write_text(_version_of(response.headers), "latin-1")
            with self.path.open("ab" if resumed else "wb") as stream:
                while chunk := response.read(_CHUNK_BYTES):
                    stream.write(chunk)
                    done += len(chunk)
                    on_bytes(done, total)
        if done < total:
            # read(n) returns early at a broken connection and does not raise.
            raise http.client.HTTPException(f"got {done} bytes, wanted {total}")

    def _discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)


def _version_of(headers: Mapping[str, str]) -> str:
    """What If-Range accepts: a strong ETag, else the date of the last change, else ""."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified") or ""
