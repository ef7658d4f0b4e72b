"""Who is served, how much each, and what the depot tells of it; over TLS with certificates."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import grpc
import pytest
from depot_process import card_of, model, shapes_of
from graft_client.depot_client import GrpcLink, open_channel
from graft_server.deployment.authority import Authority, Identity, create_authority
from graft_server.depot.interceptor import CallRecord
from graft_server.depot.rate_limit import MAX_MESSAGE_BYTES, DeviceQuota, RateLimiter
from graft_server.depot.server import DepotServer, DepotSettings, tls_credentials
from graft_server.model_store import DirectoryStore
from prometheus_client import CollectorRegistry

from graft.core.payload import encode_payload
from graft.core.records import LedgerEntry
from graft.errors import DeviceRefusedError, QuotaExceededError, TransportError
from graft.wire.overhead import (
    CONNECTION_UP_BYTES,
    FETCH_DOWN_BYTES,
    PUSH_DOWN_BYTES,
    PUSH_UP_BYTES,
)
from graft.wire.stubs import depot_pb2 as pb
from graft.wire.stubs import depot_pb2_grpc as pb_grpc
from graft.wire.transfer.cache import FolderCache
from graft.wire.transfer.link import CHUNK_BYTES
from graft.wire.transfer.transport import DeviceTransport, TransferLabel


class Site:
    """A depot over TLS, and channels of devices that its authority named."""

    def __init__(self, folder: Path, authority: Authority, open_things: ExitStack) -> None:
        self.folder = folder
        self.store = DirectoryStore(folder / "store", shapes_of=shapes_of)
        self.calls: list[CallRecord] = []
        self.registry = CollectorRegistry()
        self.now = 0.0
        self._authority = authority
        self._open = open_things
        self._identities: dict[str, Identity] = {}

    def serve(self, quota: DeviceQuota, allows: Callable[[str], bool] | None = None) -> None:
        identity = self._authority.server_identity(["127.0.0.1"])
        depot = DepotServer(
            self.store,
            "127.0.0.1:0",
            credentials=tls_credentials(
                key_pem=identity.key_pem,
                certificate_pem=identity.certificate_pem,
                client_ca_pem=self._authority.certificate_pem,
            ),
            settings=DepotSettings(quota=quota),
            allows=allows,
            registry=self.registry,
            record=self.calls.append,
            clock=lambda: self.now,
        )
        self._open.enter_context(depot)
        self.address = f"127.0.0.1:{depot.port}"

    def channel(self, name: str) -> grpc.Channel:
        identity = self._identities.setdefault(name, self._authority.device_identity(name))
        return self._open.enter_context(
            open_channel(
                self.address,
                root_ca_pem=self._authority.certificate_pem,
                identity_pem=(identity.key_pem, identity.certificate_pem),
            )
        )

    def link(self, name: str) -> GrpcLink:
        return GrpcLink(self.channel(name), timeout_s=30.0)

    def sample(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"graft_depot_{name}", labels) or 0.0

    def ended(self, number: int) -> list[CallRecord]:
        """The records, once there are so many: the last is written just behind its answer."""
        for _ in range(1_000):
            if len(self.calls) >= number:
                break
            time.sleep(0.01)
        assert len(self.calls) == number
        return self.calls


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def site(tmp_path: Path, authority: Authority) -> Iterator[Site]:
    with ExitStack() as open_things:
        yield Site(tmp_path, authority, open_things)


def stored(site: Site) -> str:
    return site.store.put(encode_payload("net", model(0)), "net")


def device(
    site: Site, name: str, rows: list[LedgerEntry], wait_out: Callable[[float], None]
) -> DeviceTransport:
    ticks = count()
    return DeviceTransport(
        link=site.link(name),
        cache=FolderCache(site.folder / name),
        verify=lambda card: None,
        shapes_of=shapes_of,
        label=TransferLabel(run="r", round_index=0, method="hat", domain_id=name),
        record=rows.append,
        clock=lambda: float(next(ticks)),
        wait_out=wait_out,
    )


def test_a_stranger_is_refused_at_once_and_not_tried_again(site: Site) -> None:
    site.serve(DeviceQuota(), allows={"ward-1"}.__contains__)
    card, rows, waits = card_of(site.store, stored(site)), list[LedgerEntry](), list[float]()
    device(site, "ward-1", [], waits.append).fetch(card, "base")
    with pytest.raises(DeviceRefusedError, match="ward-2"):
        device(site, "ward-2", rows, waits.append).fetch(card, "base")
    with pytest.raises(DeviceRefusedError, match="ward-2"):
        device(site, "ward-2", [], waits.append).push("net", model(1))
    assert [row.outcome for row in rows] == ["refused"]
    assert waits == []
    assert [(call.device, call.rpc, call.outcome) for call in site.ended(3)] == [
        ("ward-1", "Fetch", "OK"),
        ("ward-2", "Fetch", "PERMISSION_DENIED"),
        ("ward-2", "Received", "PERMISSION_DENIED"),
    ]


def test_a_device_over_its_quota_waits_as_long_as_it_is_told_and_goes_on(site: Site) -> None:
    # The base is some 1.3 MB: 512 kB a window make three windows.
    site.serve(DeviceQuota(bytes_per_window=MAX_MESSAGE_BYTES, window_s=60.0))
    card, rows, waits = card_of(site.store, stored(site)), list[LedgerEntry](), list[float]()

    def wait_out(seconds: float) -> None:
        waits.append(seconds)
        site.now += seconds

    device(site, "ward", rows, wait_out).fetch(card, "base")
    windows = -(-card.base_bytes // MAX_MESSAGE_BYTES)
    assert windows == 3
    assert waits == [60.0] * (windows - 1)
    assert [row.payload_bytes for row in rows] == [
        MAX_MESSAGE_BYTES,
        MAX_MESSAGE_BYTES,
        card.base_bytes - 2 * MAX_MESSAGE_BYTES,
    ]
    assert [call.outcome for call in site.ended(windows)] == ["RESOURCE_EXHAUSTED"] * 2 + ["OK"]


def test_a_push_over_the_quota_goes_on_in_the_next_window(site: Site) -> None:
    site.serve(DeviceQuota(bytes_per_window=4 * 1024 * 1024, window_s=10.0))

    def wait_out(seconds: float) -> None:
        site.now += seconds

    name, *_ = device(site, "ward", [], wait_out).push("net", model(2))
    assert site.store.part(name, "exact") == encode_payload("net", model(2))
    assert site.now == 10.0  # 5 MB, 4 MiB a window


def test_one_device_does_not_use_up_anothers_quota(site: Site) -> None:
    site.serve(DeviceQuota(bytes_per_window=2 * 1024 * 1024, window_s=60.0))
    name = stored(site)
    list(site.link("ward-1").read(name, "base", 0))
    with pytest.raises(QuotaExceededError) as refused:
        list(site.link("ward-1").read(name, "base", 0))
    assert refused.value.retry_after_s == 60.0
    list(site.link("ward-2").read(name, "base", 0))


def test_a_device_has_at_most_so_many_streams_at_once(site: Site) -> None:
    site.serve(DeviceQuota(max_streams=1))
    name = stored(site)
    link = site.link("ward-1")
    running = link.read(name, "exact", 0)
    next(running)
    with pytest.raises(QuotaExceededError, match="1 streams, limit 1"):
        list(link.read(name, "base", 0))
    list(site.link("ward-2").read(name, "base", 0))
    running.close()  # type: ignore[attr-defined]
    site.ended(3)
    list(link.read(name, "base", 0))


def test_every_call_is_a_record_and_the_metrics_add_up(site: Site) -> None:
    site.serve(DeviceQuota())
    rows: list[LedgerEntry] = []
    transport = device(site, "ward", rows, lambda seconds: None)
    name, _, base, residual = transport.push("net", model(3))
    transport.fetch(card_of(site.store, name), "exact")
    received, push, *fetches = site.ended(4)
    assert (received.rpc, received.part, received.payload_bytes) == ("Received", "base+residual", 0)
    assert (push.device, push.rpc, push.model_id) == ("ward", "Push", name)
    assert (push.part, push.payload_bytes, push.outcome) == ("base+residual", base + residual, "OK")
    assert [(call.part, call.payload_bytes) for call in fetches] == [
        ("base", base),
        ("residual", residual),
    ]
    # Both sides count the same messages. The device's ledger has the connection and the calls'
    # headers beside them, and leaves out five short messages: the question what is held and its
    # answer, the push's own header, two requests; each some 100 bytes and a segment's headers.
    beside = CONNECTION_UP_BYTES + PUSH_UP_BYTES + PUSH_DOWN_BYTES + 2 * FETCH_DOWN_BYTES
    told = sum(row.wire_bytes for row in rows) - beside
    assert 0 <= sum(call.wire_bytes for call in site.calls) - told < 5 * 200
    for direction in ("up", "down"):
        for part, num_bytes in (("base", base), ("residual", residual)):
            moved = {"direction": direction, "part": part, "device": "ward"}
            assert site.sample("payload_bytes_total", **moved) == num_bytes
            # Headers of a segment: 66 bytes on 1,448; frames and records a tenth of that.
            assert 0 < site.sample("wire_bytes_total", **moved) - num_bytes < 0.06 * num_bytes
    assert site.sample("calls_total", rpc="Fetch", outcome="OK") == 2
    assert site.sample("seconds_count", rpc="Push") == 1
    assert site.sample("running", rpc="Fetch") == site.sample("waiting") == 0


def wait_for(holds: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("got no change within 10 s")


def test_running_and_waiting_calls_are_counted_while_they_are(tmp_path: Path) -> None:
    registry, store = CollectorRegistry(), DirectoryStore(tmp_path / "s", shapes_of=shapes_of)
    name = store.put(encode_payload("net", model(0)), "net")
    with (
        DepotServer(
            store,
            "127.0.0.1:0",
            insecure=True,
            settings=DepotSettings(max_concurrent=1),
            registry=registry,
        ) as depot,
        open_channel(f"127.0.0.1:{depot.port}", insecure=True) as channel,
    ):
        # A push that sends nothing more: it has the only thread for as long as the test wants.
        messages: queue.Queue[pb.PushChunk | None] = queue.Queue()
        messages.put(pb.PushChunk(header=pb.PushHeader(model_id="0" * 64, exact_bytes=1_000_000)))
        running = pb_grpc.DepotStub(channel).Push.future(iter(messages.get, None))
        wait_for(lambda: registry.get_sample_value("graft_depot_running", {"rpc": "Push"}) == 1)
        second = threading.Thread(target=lambda: list(GrpcLink(channel).read(name, "base", 0)))
        second.start()
        wait_for(lambda: registry.get_sample_value("graft_depot_waiting") == 1)
        messages.put(None)
        assert isinstance(running.exception(timeout=10), grpc.RpcError)
        second.join(timeout=10)
        assert registry.get_sample_value("graft_depot_waiting") == 0


def test_a_device_that_goes_away_is_a_record_too(site: Site) -> None:
    site.serve(DeviceQuota())
    running = site.link("ward").read(stored(site), "exact", 0)
    next(running)
    running.close()  # type: ignore[attr-defined]
    (call,) = site.ended(1)
    assert call.outcome == "CANCELLED"
    assert call.payload_bytes >= CHUNK_BYTES


def test_two_depots_in_one_process_share_no_figures(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store", shapes_of=shapes_of)
    registries = [CollectorRegistry(), CollectorRegistry()]
    depots = [
        DepotServer(store, "127.0.0.1:0", insecure=True, registry=registry)
        for registry in registries
    ]
    with depots[0], depots[1]:
        pass


@pytest.mark.parametrize(
    "wrong", [{"bytes_per_window": MAX_MESSAGE_BYTES - 1}, {"window_s": 0.0}, {"max_streams": 0}]
)
def test_a_quota_that_nothing_fits_into_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        DeviceQuota(**wrong)  # type: ignore[arg-type]


def test_a_window_begins_with_the_first_byte_and_forgets_at_its_end() -> None:
    now = [100.0]
    limit = MAX_MESSAGE_BYTES
    book = RateLimiter(DeviceQuota(bytes_per_window=limit, window_s=10.0), lambda: now[0])
    book.charge("a", limit - 1)
    now[0] = 109.0
    with pytest.raises(QuotaExceededError) as refused:
        book.charge("a", 2)
    assert refused.value.retry_after_s == 1.0
    book.charge("a", 1)
    now[0] = 110.0
    book.charge("a", limit)


def test_without_certificates_a_device_is_its_address(tmp_path: Path) -> None:
    calls: list[CallRecord] = []
    store = DirectoryStore(tmp_path / "store", shapes_of=shapes_of)
    with (
        DepotServer(store, "127.0.0.1:0", insecure=True, record=calls.append) as depot,
        open_channel(f"127.0.0.1:{depot.port}", insecure=True) as channel,
        pytest.raises(TransportError),
    ):
        list(GrpcLink(channel).read("0" * 64, "base", 0))
    (call,) = calls
    assert (call.device, call.outcome) == ("ipv4:127.0.0.1", "NOT_FOUND")
