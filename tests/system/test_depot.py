"""A real depot on loopback: killed, restarted, lied to, and asked over TLS."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from graft_client.depot_client import GrpcLink, growing_wait, open_channel
from graft_server.deployment.authority import create_authority
from graft_server.depot.server import SERVICE, DepotServer, DepotSettings, tls_credentials
from graft_server.model_store import DirectoryStore
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graft.core.payload import decode_payload, encode_payload
from graft.core.records import LedgerEntry, ModelCard
from graft.core.tensor_types import Shapes
from graft.errors import (
    ModelMissingError,
    PayloadChangedError,
    PayloadLimitError,
    PayloadTruncatedError,
    TransportError,
)
from graft.wire.payload.parts import split_payload
from graft.wire.stubs import depot_pb2 as pb
from graft.wire.stubs import depot_pb2_grpc as pb_grpc
from graft.wire.transfer.cache import MemoryCache
from graft.wire.transfer.link import CHUNK_BYTES, Chunk, Link, Part, UploadPlan
from graft.wire.transfer.transport import DeviceTransport, TransferLabel

SHAPES: Shapes = {"w": (1_000, 1_500), "b": (1_000,)}  # 6 MB: the base alone is 5 chunks
NAME = "0" * 64
ROOT = Path(__file__).parents[2]
# A tenth of a second a chunk, so that a whole part is never in flight when the depot is killed.
DEPOT_PROCESS = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from graft_server.depot import service as depot_service
from graft_server.depot.server import DepotServer
from graft_server.model_store import DirectoryStore
messages = vars(depot_service.pb)
def chunk(**fields):
    time.sleep(0.1)
    return messages["Chunk"](**fields)
depot_service.pb = SimpleNamespace(**{**messages, "Chunk": chunk})
store = DirectoryStore(Path(sys.argv[1]), shapes_of=lambda architecture: {})
with DepotServer(store, "127.0.0.1:" + sys.argv[2], insecure=True):
    print("serving", flush=True)
    time.sleep(60)
"""


def shapes_of(architecture: str) -> Shapes:
    return SHAPES


@pytest.fixture(scope="module")
def payload() -> bytes:
    rng = np.random.default_rng(0)
    return encode_payload(
        "net", {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    )


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", shapes_of=shapes_of)


@pytest.fixture
def card(store: DirectoryStore, payload: bytes) -> ModelCard:
    name = store.put(payload, "net")
    return ModelCard(
        model_id=name,
        domain_id="source",
        architecture="net",
        payload_bytes=len(payload),
        base_bytes=len(store.part(name, "base")),
        residual_bytes=len(store.part(name, "residual")),
        class_mask_C=np.ones(2, np.bool_),
        round_index=0,
    )


@pytest.fixture
def channel(store: DirectoryStore) -> Iterator[grpc.Channel]:
    with (
        DepotServer(
            store,
            "127.0.0.1:0",
            insecure=True,
            settings=DepotSettings(max_payload_bytes=8 * 1024 * 1024),
        ) as depot,
        open_channel(f"127.0.0.1:{depot.port}", insecure=True) as channel,
    ):
        yield channel


def device(
    link: Link, rows: list[LedgerEntry], wait: Callable[[int], None] | None = None
) -> DeviceTransport:
    return DeviceTransport(
        link=link,
        cache=MemoryCache(),
        verify=lambda card: None,
        shapes_of=shapes_of,
        label=TransferLabel(run="r", round_index=0, method="hat", domain_id="ward"),
        record=rows.append,
        clock=time.monotonic,
        max_attempts=8,
        wait_before_retry=wait or growing_wait(time.sleep),
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_depot(folder: Path, port: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", DEPOT_PROCESS, str(folder), str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "serving\n"
    return process


class KillingLink:
    """Kills the depot after the first piece of the first stream, and starts another."""

    wire_source = "measured"

    def __init__(self, inner: Link, folder: Path, port: int) -> None:
        self.inner = inner
        self.folder, self.port = folder, port
        self.depot = start_depot(folder, port)
        self.offsets: list[int] = []

    def read(self, model_id: str, part: Part, offset: int) -> Iterator[Chunk]:
        self.offsets.append(offset)
        for piece in self.inner.read(model_id, part, offset):
            yield piece
            if len(self.offsets) == 1:
                self.depot.send_signal(signal.SIGKILL)
                self.depot.wait(timeout=10)
        return

    received = send = None


def test_a_depot_killed_in_the_middle_of_a_stream_costs_no_byte_twice(
    store: DirectoryStore, card: ModelCard, tmp_path: Path
) -> None:
    port, rows = free_port(), list[LedgerEntry]()
    with open_channel(f"127.0.0.1:{port}", insecure=True) as channel:
        link = KillingLink(GrpcLink(channel), tmp_path / "store", port)

        def restart_then_wait(attempts: int) -> None:
            if link.depot.poll() is not None:
                link.depot.stdout.close()  # type: ignore[union-attr]
                link.depot = start_depot(tmp_path / "store", port)
            growing_wait(time.sleep)(attempts)

        transport = device(link, rows, restart_then_wait)  # type: ignore[arg-type]
        try:
            fetched = transport.fetch(card, "exact")
        finally:
            link.depot.kill()
            link.depot.wait(timeout=10)
            link.depot.stdout.close()  # type: ignore[union-attr]
    assert fetched["w"].shape == SHAPES["w"]
    assert rows[0].outcome == "lost"
    # The kill takes effect at the piece it follows or a few in flight behind it.
    assert CHUNK_BYTES <= rows[0].payload_bytes < card.base_bytes
    assert link.offsets[1] == rows[0].payload_bytes
    assert sum(row.payload_bytes for row in rows) == card.shipped_bytes


def test_a_depot_that_stays_away_ends_in_a_transport_error(card: ModelCard) -> None:
    rows: list[LedgerEntry] = []
    with open_channel(f"127.0.0.1:{free_port()}", insecure=True) as channel:
        transport = device(GrpcLink(channel), rows, lambda attempts: None)
        with pytest.raises(TransportError, match="8 attempts"):
            transport.fetch(card, "base")
        with pytest.raises(TransportError, match="8 attempts"):
            transport.push("net", {"w": np.ones(1, np.float32)})
    assert {row.outcome for row in rows} == {"lost"}


def test_a_stream_from_any_offset_is_the_rest_of_the_part(
    store: DirectoryStore, card: ModelCard, channel: grpc.Channel
) -> None:
    link = GrpcLink(channel)
    for part in ("base", "residual", "exact"):
        whole = store.part(card.model_id, part)
        for offset in (0, 1, CHUNK_BYTES, CHUNK_BYTES + 7, len(whole) - 1, len(whole)):
            rest = b"".join(piece.data for piece in link.read(card.model_id, part, offset))
            assert rest == whole[offset:]
        with pytest.raises(PayloadLimitError, match="behind the end"):
            list(link.read(card.model_id, part, len(whole) + 1))


def test_a_truncated_file_is_a_truncated_payload(
    store: DirectoryStore, card: ModelCard, channel: grpc.Channel
) -> None:
    path = store.path(card.model_id, "residual")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PayloadTruncatedError):
        device(GrpcLink(channel), []).fetch(card, "exact")


def test_a_changed_file_is_a_changed_payload(
    store: DirectoryStore, card: ModelCard, channel: grpc.Channel
) -> None:
    path = store.path(card.model_id, "residual")
    content = bytearray(path.read_bytes())
    content[5_000] ^= 1  # in the lowest byte plane, which is stored as it is
    path.write_bytes(content)
    with pytest.raises(PayloadChangedError, match="hashes to"):
        device(GrpcLink(channel), []).fetch(card, "exact")


def test_an_unknown_model_is_missing(card: ModelCard, channel: grpc.Channel) -> None:
    with pytest.raises(ModelMissingError):
        device(GrpcLink(channel), []).fetch(replace(card, model_id="f" * 64), "base")


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "F" * 64, "0" * 63])
def test_a_name_that_is_no_model_id_never_reaches_the_store(
    name: str, channel: grpc.Channel
) -> None:
    with pytest.raises(PayloadLimitError, match="model id"):
        list(GrpcLink(channel).read(name, "exact", 0))


def test_an_oversize_push_is_refused_before_its_data(channel: grpc.Channel) -> None:
    sent = []

    def messages() -> Iterator[pb.PushChunk]:
        yield pb.PushChunk(header=pb.PushHeader(model_id=NAME, exact_bytes=8 * 1024 * 1024 + 1))
        for _ in range(10_000):
            sent.append(1)
            time.sleep(0.001)
            yield pb.PushChunk(data=bytes(1_000))

    with pytest.raises(grpc.RpcError) as refused:
        pb_grpc.DepotStub(channel).Push(messages())
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert len(sent) < 10_000


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([], grpc.StatusCode.INVALID_ARGUMENT),
        ([pb.PushChunk(data=b"x")], grpc.StatusCode.INVALID_ARGUMENT),
        ([pb.PushChunk(header=pb.PushHeader())], grpc.StatusCode.INVALID_ARGUMENT),
        (
            [pb.PushChunk(header=pb.PushHeader(model_id="../x", exact_bytes=9))],
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            [pb.PushChunk(header=pb.PushHeader(model_id=NAME, exact_bytes=9, base_bytes=9))],
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            [pb.PushChunk(header=pb.PushHeader(model_id=NAME, exact_bytes=9, offset=1))],
            grpc.StatusCode.ABORTED,
        ),
        (
            [pb.PushChunk(header=pb.PushHeader(model_id=NAME, exact_bytes=2))] * 2,
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            [pb.PushChunk(header=pb.PushHeader(model_id=NAME, exact_bytes=9))],
            grpc.StatusCode.DATA_LOSS,
        ),
        (
            [
                pb.PushChunk(header=pb.PushHeader(model_id=NAME, exact_bytes=2)),
                pb.PushChunk(data=b"many more bytes"),
            ],
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            [
                pb.PushChunk(header=pb.PushHeader(model_id=NAME, base_bytes=4, residual_bytes=4)),
                pb.PushChunk(data=b"nonsense"),
            ],
            grpc.StatusCode.DATA_LOSS,
        ),
    ],
)
def test_a_push_out_of_form_is_refused_by_name(
    messages: list[pb.PushChunk], code: grpc.StatusCode, channel: grpc.Channel
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        pb_grpc.DepotStub(channel).Push(iter(messages))
    assert refused.value.code() == code


def test_a_push_over_the_limit_is_a_typed_error(
    store: DirectoryStore, payload: bytes, tmp_path: Path
) -> None:
    with (
        DepotServer(
            store, "127.0.0.1:0", insecure=True, settings=DepotSettings(max_payload_bytes=1_000)
        ) as depot,
        open_channel(f"127.0.0.1:{depot.port}", insecure=True) as channel,
        closing(UploadPlan("net", decode_payload(payload, None, None)[1], None)) as upload,
        pytest.raises(PayloadLimitError, match="limit 1000"),
    ):
        GrpcLink(channel).send(upload, 0, lambda part, payload_bytes, wire_bytes: None)
    assert not any((tmp_path / "store").iterdir())


def test_stat_and_health_answer(card: ModelCard, channel: grpc.Channel) -> None:
    stat = pb_grpc.DepotStub(channel).Stat(pb.StatRequest(model_id=card.model_id))
    assert (stat.payload_bytes, stat.base_bytes, stat.residual_bytes) == (
        card.payload_bytes,
        card.base_bytes,
        card.residual_bytes,
    )
    health = health_pb2_grpc.HealthStub(channel)
    response = health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_an_insecure_depot_or_channel_must_be_asked_for_by_name(store: DirectoryStore) -> None:
    with pytest.raises(ValueError, match="insecure"):
        DepotServer(store, "127.0.0.1:0")
    with pytest.raises(ValueError, match="insecure"):
        open_channel("127.0.0.1:1")


def test_tls_carries_a_model_and_a_strangers_ca_is_refused(
    store: DirectoryStore, card: ModelCard, tmp_path: Path
) -> None:
    ca, key, certificate = make_identity(tmp_path / "ca")
    stranger, _, _ = make_identity(tmp_path / "stranger")
    credentials = tls_credentials(key_pem=key, certificate_pem=certificate)
    with DepotServer(store, "127.0.0.1:0", credentials=credentials) as depot:
        address = f"127.0.0.1:{depot.port}"
        with open_channel(address, root_ca_pem=ca) as channel:
            fetched = device(GrpcLink(channel), []).fetch(card, "exact")
        assert fetched["w"].shape == SHAPES["w"]
        for attempt in ({"root_ca_pem": stranger}, {"insecure": True}):
            with open_channel(address, **attempt) as channel:  # type: ignore[arg-type]
                link = GrpcLink(channel, timeout_s=5.0)
                with pytest.raises(TransportError):
                    list(link.read(card.model_id, "base", 0))


def test_a_depot_that_asks_for_certificates_serves_no_stranger(
    store: DirectoryStore, card: ModelCard, tmp_path: Path
) -> None:
    ca, key, certificate = make_identity(tmp_path / "ca")
    _, stranger_key, stranger_certificate = make_identity(tmp_path / "stranger")
    credentials = tls_credentials(key_pem=key, certificate_pem=certificate, client_ca_pem=ca)
    with DepotServer(store, "127.0.0.1:0", credentials=credentials) as depot:
        address = f"127.0.0.1:{depot.port}"
        with open_channel(address, root_ca_pem=ca, identity_pem=(key, certificate)) as channel:
            list(GrpcLink(channel).read(card.model_id, "base", 0))
        for identity in (None, (stranger_key, stranger_certificate)):
            with (
                open_channel(address, root_ca_pem=ca, identity_pem=identity) as channel,
                pytest.raises(TransportError),
            ):
                list(GrpcLink(channel, timeout_s=5.0).read(card.model_id, "base", 0))


def test_small_parts_that_claim_a_huge_model_are_refused_before_they_grow(
    channel: grpc.Channel,
) -> None:
    bomb, rest = split_payload(encode_payload("net", {"w": np.zeros((1_000, 2_000), np.float32)}))
    assert len(bomb) + len(rest) < 50_000  # 8 MB of zeros
    header = pb.PushHeader(model_id=NAME, base_bytes=len(bomb), residual_bytes=len(rest))
    messages = [pb.PushChunk(header=header), pb.PushChunk(data=bomb + rest)]
    with pytest.raises(grpc.RpcError, match="wanted"):
        pb_grpc.DepotStub(channel).Push(iter(messages))


def make_identity(folder: Path) -> tuple[bytes, bytes, bytes]:
    """A fresh CA's certificate, and a key and certificate for 127.0.0.1 that it signed; PEM."""
    authority = create_authority(folder)
    identity = authority.server_identity(["127.0.0.1"])
    return authority.certificate_pem, identity.key_pem, identity.certificate_pem
