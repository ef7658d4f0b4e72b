"""Fetching against a real server on loopback that can break off, refuse and change."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from graft.data.public.download import FetchReport, fetch_dataset, find_download
from graft.data.public.recordings import Download
from graft.data.public.registry import READERS
from graft.errors import ConfigError, DatasetFormatError, TransportError

CONTENT = bytes(range(256)) * 8_192  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Mirror:
    """What the server serves, how it misbehaves, and what it was asked."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    break_after: list[int] = field(default_factory=list)
    status: int = 200
    ranges: bool = True
    chunked: bool = False
    asked: list[str | None] = field(default_factory=list)
    port: int = 0

    def download(self, sha256: str | None = None) -> Download:
        url = f"http://127.0.0.1:{self.port}/hapt.zip"
        return Download(url=url, file_name="hapt.zip", sha256=sha256)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    state = Mirror()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.asked.append(asked)
            if state.status != 200:
                self.send_error(state.status)
                return
            start = 0
            if asked and state.ranges and self.headers.get("If-Range") in (None, state.etag):
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(state.content):
                    self.send_error(416)
                    return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            if start:
                end = len(state.content)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
            if state.etag:
                self.send_header("ETag", state.etag)
            self.close_connection = True
            if state.chunked:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                sent = state.break_after.pop(0) if state.break_after else None
                self.wfile.write(b"%x\r\n" % len(body) + body[:sent])
                if sent is None:
                    self.wfile.write(b"\r\n0\r\n\r\n")
                return
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.break_after.pop(0)] if state.break_after else body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(
    mirror: Mirror, folder: Path, sha256: str | None = None, attempts: int = 3
) -> FetchReport:
    return fetch_dataset(
        "hapt",
        folder,
        download=mirror.download(sha256),
        attempts=attempts,
        timeout_s=5.0,
        sleep=lambda _: None,
    )


def test_the_bytes_arrive_whole_with_their_licence_and_progress(
    mirror: Mirror, tmp_path: Path
) -> None:
    calls: list[tuple[str, int, int]] = []
    report = fetch_dataset(
        "hapt", tmp_path, lambda *call: calls.append(call), download=mirror.download(SHA256)
    )
    assert report.path.read_bytes() == CONTENT
    assert (report.sha256, report.num_bytes, report.checked) == (SHA256, len(CONTENT), "known")
    assert "CC BY 4.0" in report.licence
    assert calls[-1] == ("hapt.zip", len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["hapt.zip"]


def test_a_broken_download_is_resumed_where_it_broke(mirror: Mirror, tmp_path: Path) -> None:
    mirror.break_after = [700_000, 500_000]
    assert fetch(mirror, tmp_path, SHA256).path.read_bytes() == CONTENT
    assert mirror.asked == [None, "bytes=700000-", "bytes=1200000-"]


def test_the_part_that_arrived_serves_the_next_call(mirror: Mirror, tmp_path: Path) -> None:
    mirror.break_after = [700_000]
    with pytest.raises(TransportError, match=r"hapt\.zip\.partial"):
        fetch(mirror, tmp_path, SHA256, attempts=1)
    assert not (tmp_path / "hapt.zip").exists()
    fetch(mirror, tmp_path, SHA256, attempts=1)
    assert mirror.asked == [None, "bytes=700000-"]


def test_halves_of_two_versions_are_never_joined(mirror: Mirror, tmp_path: Path) -> None:
    mirror.break_after = [700_000]
    with pytest.raises(TransportError):
        fetch(mirror, tmp_path, attempts=1)
    mirror.content, mirror.etag = CONTENT[::-1], '"two"'
    assert fetch(mirror, tmp_path).path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("trait", ["no ranges", "no version", "chunked"])
def test_a_server_that_cannot_resume_is_read_from_the_start(
    trait: str, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.ranges = trait == "no version"
    mirror.etag = None if trait == "no version" else mirror.etag
    mirror.chunked = trait == "chunked"
    mirror.break_after = [700_000]
    assert fetch(mirror, tmp_path, SHA256).path.read_bytes() == CONTENT
    assert len(mirror.asked) == 2


def test_a_first_download_is_recorded_and_a_later_one_compared(
    mirror: Mirror, tmp_path: Path
) -> None:
    first = fetch(mirror, tmp_path)
    assert first.checked == "nothing"
    assert (tmp_path / "hapt.zip.sha256").read_text() == f"{SHA256}  hapt.zip\n"
    again = fetch(mirror, tmp_path)
    assert (again.checked, again.reused, len(mirror.asked)) == ("recorded", True, 1)
    (tmp_path / "hapt.zip").unlink()
    mirror.content = CONTENT[:-1] + b"!"
    with pytest.raises(DatasetFormatError, match=SHA256):
        fetch(mirror, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hapt.zip.sha256"]


def test_changed_bytes_are_refused_and_not_kept(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content = CONTENT[:-1] + b"!"
    with pytest.raises(DatasetFormatError, match=f"wanted {SHA256}"):
        fetch(mirror, tmp_path, SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changed_on_disk_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    fetch(mirror, tmp_path, SHA256).path.write_bytes(b"other")
    with pytest.raises(DatasetFormatError, match=f"wanted {SHA256}"):
        fetch(mirror, tmp_path, SHA256)


def test_a_part_longer_than_the_file_is_thrown_away(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "hapt.zip.partial").write_bytes(CONTENT + b"more")
    (tmp_path / "hapt.zip.partial.version").write_text('"one"')
    assert fetch(mirror, tmp_path, SHA256).path.read_bytes() == CONTENT


def test_a_refusal_is_told_at_once_and_a_busy_server_asked_again(
    mirror: Mirror, tmp_path: Path
) -> None:
    mirror.status = 404
    with pytest.raises(TransportError, match="HTTP 404"):
        fetch(mirror, tmp_path)
    assert len(mirror.asked) == 1
    mirror.status = 503
    with pytest.raises(TransportError, match="3 times"):
        fetch(mirror, tmp_path)
    assert len(mirror.asked) == 4


def test_only_web_addresses_and_known_sets_are_fetched(tmp_path: Path) -> None:
    local = Download(url="file:///etc/hosts", file_name="hosts")
    with pytest.raises(ConfigError, match="wanted http"):
        fetch_dataset("hapt", tmp_path, download=local)
    with pytest.raises(ConfigError):
        find_download("mnist")


def test_every_public_set_has_an_official_address_over_https() -> None:
    # Three sets have no address of one file: an error names their page.
    without = {"office", "fdu-mtl", "utd-mhad"}
    assert all(find_download(name).url.startswith("https://") for name in READERS.keys() - without)
    for name in without:
        with pytest.raises(ConfigError, match="no address of one file; see https://"):
            find_download(name)
