"""Transfers that outlive a kill of either side, with real processes and real kills."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import grpc
import pytest
from depot_process import card_of, model, shapes_of
from graft_client.depot_client import GrpcLink, open_channel
from graft_server.depot.server import DepotServer, DepotSettings
from graft_server.model_store import DirectoryStore

from graft.core.payload import encode_payload, model_id
from graft.core.records import LedgerEntry
from graft.errors import PayloadChangedError, TransportError
from graft.wire.stubs import depot_pb2 as pb
from graft.wire.stubs import depot_pb2_grpc as pb_grpc
from graft.wire.transfer.cache import FolderCache
from graft.wire.transfer.link import CHUNK_BYTES, Chunk, Link, Part, UploadPlan
from graft.wire.transfer.transfer_log import read_journal
from graft.wire.transfer.transport import DeviceTransport, TransferLabel

HERE = Path(__file__).parent
PATIENCE_S = 60.0


class Machine:
    """Starts depots and devices in one folder, and kills them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.started: list[subprocess.Popen[str]] = []

    def start(self, what: str, *arguments: str) -> subprocess.Popen[str]:
        """Running, and past its imports."""
        environment = dict(os.environ)
        environment["PYTHONPATH"] = f"{HERE.parents[1]}:{environment.get('PYTHONPATH', '')}"
        process = subprocess.Popen(
            [
                sys.executable,
                HERE / "depot_process.py",
                what,
                self.folder,
                str(self.port),
                *arguments,
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() in ("serving\n", "begun\n")
        return process

    def finish(self, process: subprocess.Popen[str]) -> str:
        """The model id that a device is done with."""
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        return output.split()[-1]

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)

    def rows(self) -> list[LedgerEntry]:
        return read_journal(self.folder / "journal")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    for process in machine.started:
        process.kill()
        process.wait(timeout=10)
        if process.stdout is not None:
            process.stdout.close()


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def largest(folder: Path, pattern: str) -> int:
    """Bytes of the largest file of that name; 0: there is none."""
    sizes = [0]
    for path in folder.glob(pattern):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue  # moved away meanwhile
    return max(sizes)


def stored(folder: Path, seed: int = 0) -> tuple[DirectoryStore, str]:
    store = DirectoryStore(folder / "store", shapes_of=shapes_of)
    return store, store.put(encode_payload("net", model(seed)), "net")


def of_part(rows: list[LedgerEntry], part: str) -> list[LedgerEntry]:
    return [row for row in rows if row.message == f"payload.{part}"]


def test_a_device_killed_while_it_fetches_goes_on_where_it_was(machine: Machine) -> None:
    store, name = stored(machine.folder)
    card = card_of(store, name)
    machine.start("depot")
    device = machine.start("fetch", "exact")
    wait_for(lambda: largest(machine.folder / "device", "*.base.partial") >= 2 * CHUNK_BYTES)
    machine.kill(device)
    received = largest(machine.folder / "device", "*.base.partial")
    assert received < card.base_bytes
    assert machine.rows() == []  # it could write nothing down
    assert machine.finish(machine.start("fetch", "exact")) == name
    lost, rest = of_part(machine.rows(), "base")
    # What was received goes down first; a torn last piece would be less than a chunk.
    assert (lost.outcome, lost.attempt, lost.wire_source) == ("lost", 0, "modelled")
    assert received - CHUNK_BYTES < lost.payload_bytes <= received
    assert (rest.outcome, rest.attempt) == ("ok", 1)
    assert lost.payload_bytes + rest.payload_bytes == card.base_bytes  # nothing twice
    assert sum(row.payload_bytes for row in machine.rows()) == card.shipped_bytes


def test_a_depot_killed_while_it_is_pushed_to_goes_on_where_it_was(machine: Machine) -> None:
    depot = machine.start("depot")
    device = machine.start("push", "3")
    incoming = machine.folder / "store" / "incoming"
    wait_for(lambda: largest(incoming, "*.push") >= 3 * CHUNK_BYTES)
    machine.kill(depot)
    held = largest(incoming, "*.push")
    machine.start("depot")
    name = machine.finish(device)
    store = DirectoryStore(machine.folder / "store", shapes_of=shapes_of)
    assert store.part(name, "exact") == encode_payload("net", model(3))
    assert list(incoming.iterdir()) == []
    rows = [row for row in machine.rows() if row.phase == "register"]
    assert rows[0].outcome == "lost"
    # The stream after the kill brings what was not held, and no byte that was.
    after = sum(row.payload_bytes for row in rows if row.outcome == "ok")
    assert after == store.path(name, "base").stat().st_size + residual_bytes(store, name) - held


def residual_bytes(store: DirectoryStore, name: str) -> int:
    return store.path(name, "residual").stat().st_size


def test_a_device_killed_while_it_pushes_goes_on_where_it_was(machine: Machine) -> None:
    machine.start("depot")
    device = machine.start("push", "4")
    incoming = machine.folder / "store" / "incoming"
    wait_for(lambda: largest(incoming, "*.push") >= 3 * CHUNK_BYTES)
    machine.kill(device)
    assert machine.rows() == []
    name = machine.finish(machine.start("push", "4"))
    store = DirectoryStore(machine.folder / "store", shapes_of=shapes_of)
    rows = [row for row in machine.rows() if row.phase == "register"]
    lost = [row for row in rows if row.outcome == "lost"]
    assert sum(row.payload_bytes for row in lost) >= 3 * CHUNK_BYTES
    whole = store.path(name, "base").stat().st_size + residual_bytes(store, name)
    assert sum(row.payload_bytes for row in rows) == whole  # every byte once
    assert not list((machine.folder / "device").iterdir())  # nothing of the push is left


# --- the same in one process, step by step -----------------------------------------------------


class CutLink:
    """A link whose streams end in an error after ``pieces`` pieces, or stop the process."""

    wire_source = "measured"

    def __init__(self, inner: Link, pieces: int, error: type[BaseException]) -> None:
        self.inner, self.pieces, self.error = inner, pieces, error

    def read(self, model_id: str, part: Part, offset: int) -> Iterator[Chunk]:
        for piece in self.inner.read(model_id, part, offset):
            if not self.pieces:
                raise self.error
            self.pieces -= 1
            yield piece

    received = send = None


def device(link: Link, cache: FolderCache, rows: list[LedgerEntry]) -> DeviceTransport:
    ticks = count()
    return DeviceTransport(
        link=link,
        cache=cache,
        verify=lambda card: None,
        shapes_of=shapes_of,
        label=TransferLabel(run="r", round_index=0, method="hat", domain_id="ward"),
        record=rows.append,
        clock=lambda: float(next(ticks)),
        max_attempts=1,
    )


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[tuple[DirectoryStore, GrpcLink, grpc.Channel]]:
    store = DirectoryStore(tmp_path / "store", shapes_of=shapes_of)
    with (
        DepotServer(store, "127.0.0.1:0", insecure=True) as server,
        open_channel(f"127.0.0.1:{server.port}", insecure=True) as channel,
    ):
        yield store, GrpcLink(channel), channel


def test_a_broken_transfer_whose_rows_were_written_is_not_told_twice(
    depot: tuple[DirectoryStore, GrpcLink, grpc.Channel], tmp_path: Path
) -> None:
    store, link, _ = depot
    _, name = stored(tmp_path)
    rows: list[LedgerEntry] = []
    cache = FolderCache(tmp_path / "device")
    cut = CutLink(link, 2, TransportError)
    with pytest.raises(TransportError, match="1 attempts"):
        device(cut, cache, rows).fetch(card_of(store, name), "base")  # type: ignore[arg-type]
    device(link, FolderCache(tmp_path / "device"), rows).fetch(card_of(store, name), "base")
    assert [(row.outcome, row.attempt) for row in rows] == [("lost", 0), ("ok", 0)]
    assert rows[0].payload_bytes == 2 * CHUNK_BYTES
    assert sum(row.payload_bytes for row in rows) == card_of(store, name).base_bytes


def test_a_partial_of_wrong_bytes_is_dropped_and_fetched_anew_once(
    depot: tuple[DirectoryStore, GrpcLink, grpc.Channel], tmp_path: Path
) -> None:
    store, link, _ = depot
    _, name = stored(tmp_path)
    card, cache = card_of(store, name), FolderCache(tmp_path / "device")
    wrong = bytearray(store.part(name, "residual")[:CHUNK_BYTES])
    wrong[5_000] ^= 1
    partial = cache.start_download(name, "residual", card.residual_bytes)
    partial.append(bytes(wrong))
    partial.mark_recorded()
    rows: list[LedgerEntry] = []
    fetched = device(link, cache, rows).fetch(card, "exact")
    assert {n: a.tobytes() for n, a in fetched.items()} == {
        n: a.tobytes() for n, a in model(0).items()
    }
    assert [row.payload_bytes for row in rows] == [
        card.base_bytes,
        card.residual_bytes - CHUNK_BYTES,
        card.base_bytes,  # which of the two was wrong, nobody can tell
        card.residual_bytes,
    ]


def test_what_is_wrong_twice_is_refused(
    depot: tuple[DirectoryStore, GrpcLink, grpc.Channel], tmp_path: Path
) -> None:
    store, link, _ = depot
    _, name = stored(tmp_path)
    card, cache = card_of(store, name), FolderCache(tmp_path / "device")
    content = bytearray(store.part(name, "residual"))
    content[5_000] ^= 1
    store.path(name, "residual").write_bytes(content)
    rows: list[LedgerEntry] = []
    transport = device(link, cache, rows)
    transport.fetch(card, "base")
    with pytest.raises(PayloadChangedError, match="hashes to"):
        transport.fetch(card, "exact")
    # Once with the base that was held, once all anew; then it is the depot that is wrong.
    assert [row.message.split(".")[1] for row in rows if not row.cached] == [
        "base",
        "residual",
        "base",
        "residual",
    ]


def test_a_push_whose_answer_never_came_is_not_sent_again(
    depot: tuple[DirectoryStore, GrpcLink, grpc.Channel], tmp_path: Path
) -> None:
    store, link, _ = depot
    name = model_id(encode_payload("net", model(5)))
    cache = FolderCache(tmp_path / "device")
    cache.note_sent(name, 0)  # begun by a process that was killed
    store.put(encode_payload("net", model(5)), "net")
    rows: list[LedgerEntry] = []
    pushed = device(link, cache, rows).push("net", model(5))
    assert pushed[0] == name
    assert [(row.phase, row.outcome) for row in rows] == [
        ("register", "lost"),
        ("register", "lost"),
        ("acknowledge", "ok"),
    ]
    assert sum(row.payload_bytes for row in rows[:2]) == pushed[2] + pushed[3]


def test_damaged_bytes_at_the_depot_are_dropped_and_the_whole_is_sent_once_more(
    depot: tuple[DirectoryStore, GrpcLink, grpc.Channel], tmp_path: Path
) -> None:
    _, link, channel = depot
    rows: list[LedgerEntry] = []
    transport = device(link, FolderCache(tmp_path / "device"), rows)
    beside = DirectoryStore(tmp_path / "beside", shapes_of=shapes_of)  # tells the lengths
    card = card_of(beside, beside.put(encode_payload("net", model(7)), "net"))
    name, base, residual = card.model_id, card.base_bytes, card.residual_bytes
    header = pb.PushHeader(model_id=name, base_bytes=base, residual_bytes=residual)
    with pytest.raises(grpc.RpcError):
        pb_grpc.DepotStub(channel).Push(
            iter([pb.PushChunk(header=header), pb.PushChunk(data=bytes(100_000))])
        )
    assert pb_grpc.DepotStub(channel).Received(header).received_bytes == 100_000
    assert transport.push("net", model(7))[0] == name
    sent = [row.payload_bytes for row in rows if row.phase == "register"]
    assert sent == [base - 100_000, residual, base, residual]
    assert [row.outcome for row in rows] == ["refused", "refused", "ok", "ok", "ok"]


def test_pushes_that_nobody_goes_on_with_are_removed_by_age_and_by_size(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store", shapes_of=shapes_of)
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    for number, size in enumerate((700, 800, 900)):
        path = incoming / f"{number}.push"
        path.write_bytes(bytes(size))
        os.utime(path, (1_000 + number, 1_000 + number))
    (incoming / "work-xyz").write_bytes(b"of a depot that was killed")
    settings = DepotSettings(
        incoming_folder=incoming, incoming_max_age_s=9.0, incoming_max_bytes=1_000
    )
    with (
        DepotServer(
            store, "127.0.0.1:0", insecure=True, settings=settings, now=lambda: 1_010.0
        ) as server,
        open_channel(f"127.0.0.1:{server.port}", insecure=True) as channel,
        closing(UploadPlan("net", model(0), None)) as upload,
    ):
        GrpcLink(channel).send(upload, 0, lambda *sent: None)
    # 0.push is ten seconds old, 1.push and 2.push are 1,700 bytes together.
    assert [path.name for path in incoming.iterdir()] == ["2.push"]


def test_a_second_stream_of_a_push_takes_it_over(
    depot: tuple[DirectoryStore, GrpcLink, grpc.Channel], tmp_path: Path
) -> None:
    store, _, channel = depot
    payload = encode_payload("net", model(8))
    header = pb.PushHeader(model_id=model_id(payload), exact_bytes=len(payload))
    stub = pb_grpc.DepotStub(channel)

    def old() -> Iterator[pb.PushChunk]:
        yield pb.PushChunk(header=header)
        yield pb.PushChunk(data=payload[:1_000])
        wait_for(lambda: model_id(payload) in store)
        yield pb.PushChunk(data=b"late")

    first = stub.Push.future(old())
    wait_for(lambda: stub.Received(header).received_bytes == 1_000)
    header_2 = pb.PushHeader(model_id=model_id(payload), exact_bytes=len(payload), offset=1_000)
    rest = [payload[at : at + CHUNK_BYTES] for at in range(1_000, len(payload), CHUNK_BYTES)]
    response = stub.Push(
        iter([pb.PushChunk(header=header_2), *(pb.PushChunk(data=data) for data in rest)])
    )
    assert response.model_id == model_id(payload)
    assert store.part(response.model_id, "exact") == payload
    assert first.exception().code() == grpc.StatusCode.ABORTED
