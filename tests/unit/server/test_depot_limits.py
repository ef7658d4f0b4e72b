"""What one device can take from a depot: not its workers, not its disk, not its health check."""

import contextlib
import queue
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from graft_client.depot_client import open_channel
from graft_server.deployment.authority import Authority, create_authority
from graft_server.depot.rate_limit import DeviceQuota
from graft_server.depot.server import SERVICE, DepotServer, DepotSettings, folder_credentials
from graft_server.model_store import DirectoryStore
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graft.core.payload import encode_payload, model_id
from graft.wire.stubs import depot_pb2 as pb
from graft.wire.stubs import depot_pb2_grpc as pb_grpc

SHAPES = {"w": (8, 8), "b": (8,)}
WORKERS = 16


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", shapes_of=lambda architecture: SHAPES)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = create_authority(tmp_path)
    authority.server_identity(["127.0.0.1"]).write(tmp_path)
    authority.device_identity("ann").write(tmp_path / "ann")
    return authority


def payload(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    return encode_payload(
        "net", {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    )


class IdlePush:
    """A stream that announces a push and then sends nothing, or a byte now and then."""

    def __init__(self, stub: pb_grpc.DepotStub, number: int) -> None:
        header = pb.PushHeader(model_id=f"{number:064x}", exact_bytes=1_000_000)
        self._messages: queue.Queue[pb.PushChunk] = queue.Queue()
        self._messages.put(pb.PushChunk(header=header))
        self.call = stub.Push.future(iter(self._messages.get, None))

    def drip(self) -> None:
        self._messages.put(pb.PushChunk(data=b"x"))

    def ended(self, within_s: float) -> bool:
        deadline_s = time.monotonic() + within_s
        while not self.call.done() and time.monotonic() < deadline_s:
            time.sleep(0.02)
        return bool(self.call.done())


def is_healthy(channel: grpc.Channel, timeout_s: float) -> bool:
    request = health_pb2.HealthCheckRequest(service=SERVICE)
    response = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def test_idle_pushes_on_all_workers_leave_health_its_own_and_are_cut_off(
    store: DirectoryStore,
) -> None:
    turned_away: list[str] = []
    name = store.put(payload(0), "net")
    with (
        DepotServer(
            store,
            "127.0.0.1:0",
            insecure=True,
            settings=DepotSettings(idle_s=0.8),
            turn_away=turned_away.append,
        ) as depot,
        open_channel(f"127.0.0.1:{depot.port}", insecure=True) as channel,
    ):
        stub = pb_grpc.DepotStub(channel)
        pushes = [IdlePush(stub, number) for number in range(WORKERS)]
        assert is_healthy(channel, 0.6)  # before any is cut off
        for _ in range(3):
            pushes[0].drip()  # which earns it next to nothing
            time.sleep(0.1)
        assert stub.Stat(pb.StatRequest(model_id=name), timeout=10).model_id == name
        assert all(push.ended(10) for push in pushes)
        deadline_s = time.monotonic() + 5
        while len(turned_away) < WORKERS and time.monotonic() < deadline_s:
            time.sleep(0.01)
    assert turned_away == WORKERS * ["idle"]


def test_a_device_has_a_share_of_the_disk(store: DirectoryStore) -> None:
    first, second = payload(1), payload(2)
    settings = DepotSettings(quota=DeviceQuota(stored_bytes=len(first) + 10))

    @contextlib.contextmanager
    def served() -> Iterator[pb_grpc.DepotStub]:
        with (
            DepotServer(store, "127.0.0.1:0", insecure=True, settings=settings) as depot,
            open_channel(f"127.0.0.1:{depot.port}", insecure=True) as channel,
        ):
            yield pb_grpc.DepotStub(channel)

    def push(stub: pb_grpc.DepotStub, data: bytes) -> str:
        header = pb.PushHeader(model_id=model_id(data), exact_bytes=len(data))
        messages = iter([pb.PushChunk(header=header), pb.PushChunk(data=data)])
        return str(stub.Push(messages, timeout=10).model_id)

    for _ in range(2):  # a depot that is started again knows what the first took
        with served() as stub:
            assert push(stub, first) == model_id(first)
            with pytest.raises(grpc.RpcError, match="bytes in the store"):
                push(stub, second)
    store.path(model_id(first), "exact").unlink()  # a model that is removed is not counted
    with served() as stub:
        assert push(stub, second) == model_id(second)


@contextlib.contextmanager
def connected(folder: Path, port: int) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(folder / "ann" / "tls.pem", folder / "ann" / "tls.key")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        yield connection


def test_a_renewed_certificate_is_served_from_the_next_connection_on(
    tmp_path: Path, authority: Authority, store: DirectoryStore
) -> None:
    with DepotServer(store, "127.0.0.1:0", credentials=folder_credentials(tmp_path)) as depot:
        served = []
        for _ in range(2):
            with connected(tmp_path, depot.port) as connection:
                served.append(connection.getpeercert(binary_form=True))
            authority.server_identity(["127.0.0.1"]).write(tmp_path)
    assert served[0] != served[1]


def test_with_certificates_a_device_has_a_share_of_the_workers_by_default(
    tmp_path: Path, authority: Authority, store: DirectoryStore
) -> None:
    credentials = grpc.ssl_channel_credentials(
        (tmp_path / "ca.pem").read_bytes(),
        (tmp_path / "ann" / "tls.key").read_bytes(),
        (tmp_path / "ann" / "tls.pem").read_bytes(),
    )
    with (
        DepotServer(store, "127.0.0.1:0", credentials=folder_credentials(tmp_path)) as depot,
        grpc.secure_channel(f"127.0.0.1:{depot.port}", credentials) as channel,
    ):
        pushes = [IdlePush(pb_grpc.DepotStub(channel), number) for number in range(6)]
        deadline_s = time.monotonic() + 5
        while sum(push.call.done() for push in pushes) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.02)
        codes = [push.call.code() for push in pushes if push.call.done()]
    assert codes == 2 * [grpc.StatusCode.RESOURCE_EXHAUSTED]
