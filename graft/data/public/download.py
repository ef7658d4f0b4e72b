"""Downloads a public data set's originals from their official address, for people online."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from graft.data.public.registry import Progress, find_dataset
from graft.errors import ConfigError, DatasetFormatError, TransportError

_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Where one data set's originals lie.

    ``sha256`` (hex) is None where the file's checksum is not published or not stable: the
    archives that GitHub packs on demand may change without their content changing.
    """

    name: str
    url: str
    file_name: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchReport:
    """What ``fetch_dataset`` left in the folder.

    ``checked`` says what the bytes were compared with: the checksum "known" to graft, the
    one "recorded" at an earlier download, or "nothing" on the first download of a file
    whose checksum graft does not know. ``reused``: the file was there and was not
    downloaded again.
    """

    path: Path
    url: str
    num_bytes: int
    sha256: str
    licence: str
    checked: Literal["known", "recorded", "nothing"]
    reused: bool


DOWNLOADS = (
    Download(
        name="hapt",
        url=(
            "https://archive.ics.uci.edu/static/public/341/smartphone+based+recognition+of+"
            "human+activities+and+postural+transitions.zip"
        ),
        file_name="hapt.zip",
        sha256="4ac4ae064227c07045a99551876b54d204837e995e298b6488559e209b3deb09",
    ),
    Download(
        name="myo",
        url="https://github.com/aljazfrancic/myo-readings-dataset/archive/HEAD.zip",
        file_name="myo-readings-dataset.zip",
    ),
    Download(
        name="spsw",
        url="https://github.com/GeoTecINIT/sp-sw-har-dataset/archive/refs/tags/v1.0.0-r1.zip",
        file_name="sp-sw-har-dataset.zip",
    ),
    Download(
        name="pendigits",
        url=(
            "https://archive.ics.uci.edu/static/public/81/"
            "pen+based+recognition+of+handwritten+digits.zip"
        ),
        file_name="pendigits.zip",
        sha256="1e02bea023613c2b11c9492f6f34caf975420455934f3527d270cee9a1f03b64",
    ),
    Download(
        name="fsdd",
        url="https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip",
        file_name="free-spoken-digit-dataset.zip",
    ),
)


def find_download(name: str) -> Download:
    """Where the public data set ``name`` is downloaded from; raises ConfigError if unknown."""
    find_dataset(name)
    return next(download for download in DOWNLOADS if download.name == name)


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
    """Download the originals of ``name`` into ``out_dir``; what is there already is checked.

    Two of the five checksums are known to graft. For the other three the first download
    cannot be checked at all: its SHA-256 is recorded in ``<file>.sha256``, and every later
    call compares with that record. ``FetchReport.checked`` says which case it was.

    An interrupted download stays as ``<file>.partial`` and is resumed where the server allows
    it; up to ``attempts`` connections are made, ``sleep`` between them. ``progress`` is
    called with the file name, the bytes done and the bytes in all (0 where not told).
    ``download`` replaces the official address, for a mirror.

    Raises:
        ConfigError: no such data set, or an address that is not http or https.
        TransportError: the server refused, or the connection broke ``attempts`` times.
        DatasetFormatError: the bytes are not those of the known or recorded checksum.
    """
    licence = find_dataset(name).description.licence
    place = download if download is not None else find_download(name)
    if not place.url.startswith(("https://", "http://")):
        raise ConfigError(f"address: got {place.url!r}, wanted http:// or https://")
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / place.file_name
    reused = path.exists()
    arrived = path if reused else path.with_name(path.name + ".partial")
    if not reused:
        _download(place.url, arrived, place.file_name, progress, attempts, timeout_s, sleep)
    sha256 = _hash_file(arrived)
    record = path.with_name(path.name + ".sha256")
    wanted, checked = _wanted_checksum(place, record)
    if wanted is not None and sha256 != wanted:
        if not reused:
            # Kept, it would be taken for the first part of the right file.
            arrived.unlink()
        raise DatasetFormatError(
            f"{path}: got bytes of SHA-256 {sha256}, wanted {wanted} ({checked}); if the data set "
            f"was published anew, remove {record.name if checked == 'recorded' else path.name} "
            "and fetch again"
        )
    if not reused:
        arrived.replace(path)
    if wanted is None:
        record.write_text(f"{sha256}  {path.name}\n", encoding="ascii")
    return FetchReport(
        path=path,
        url=place.url,
        num_bytes=path.stat().st_size,
        sha256=sha256,
        licence=licence,
        checked=checked,
        reused=reused,
    )


def _wanted_checksum(
    place: Download, record: Path
) -> tuple[str | None, Literal["known", "recorded", "nothing"]]:
    if place.sha256 is not None:
        return place.sha256, "known"
    if record.exists():
        return record.read_text(encoding="ascii").split(maxsplit=1)[0], "recorded"
    return None, "nothing"


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(
    url: str,
    partial: Path,
    label: str,
    progress: Progress | None,
    attempts: int,
    timeout_s: float,
    sleep: Callable[[float], None],
) -> None:
    """Bring all of ``url`` into ``partial``, resuming what an earlier attempt left there."""
    for attempt in range(attempts):
        try:
            _download_once(url, partial, label, progress, timeout_s)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                raise TransportError(f"{url}: got HTTP {error.code}, wanted the file") from error
            if error.code == 416:
                # What lies here is longer than the server's file: it is another file.
                _forget(partial)
            reason: Exception = error
        except (OSError, http.client.HTTPException) as error:
            reason = error
        else:
            _version_note(partial).unlink(missing_ok=True)
            return
        if attempt + 1 < attempts:
            sleep(float(2**attempt))
    raise TransportError(
        f"{url}: the connection broke {attempts} times, last: {reason}; "
        f"the part that arrived is kept as {partial.name}"
    ) from reason


def _download_once(
    url: str, partial: Path, label: str, progress: Progress | None, timeout_s: float
) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "graft"})  # noqa: S310
    have = partial.stat().st_size if partial.exists() else 0
    note = _version_note(partial)
    version = note.read_text("latin-1") if note.exists() else ""
    # Without a version the server cannot tell whether its file is still the same one, and
    # two halves of different files would be joined.
    if have and version:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", version)
    with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
        resumed = response.status == 206 and _resumes_at(response.headers, have)
        if response.status == 206 and not resumed:
            _forget(partial)
            raise http.client.HTTPException("the server sent another range than was asked for")
        done = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None else 0
        note.write_text(_version_of(response.headers), "latin-1")
        with partial.open("ab" if resumed else "wb") as stream:
            while chunk := response.read(_CHUNK_BYTES):
                stream.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(label, done, total)
    if done < total:
        # read(n) returns early at a broken connection and does not raise.
        raise http.client.HTTPException(f"got {done} bytes, wanted {total}")


def _resumes_at(headers: Mapping[str, str], have: int) -> bool:
    return (headers.get("Content-Range") or "").startswith(f"bytes {have}-")


def _version_of(headers: Mapping[str, str]) -> str:
    """What If-Range accepts: a strong ETag, else the date of the last change, else ""."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified") or ""


def _version_note(partial: Path) -> Path:
    return partial.with_name(partial.name + ".version")


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _version_note(partial).unlink(missing_ok=True)
