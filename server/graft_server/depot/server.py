"""The model depot: a gRPC service that streams models out of and into the server's store."""

import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, Gauge

from graft.core.payload import MAX_PAYLOAD_BYTES
from graft.core.ports import Clock
from graft.wire.stubs import depot_pb2_grpc as pb_grpc
from graft_server.depot.interceptor import SERVICE, CallRecord, DepotInterceptor, DepotMetrics
from graft_server.depot.rate_limit import (
    DEVICE_QUOTA,
    MAX_MESSAGE_BYTES,
    DeviceQuota,
    RateLimiter,
    StoredBytes,
    StreamDeadlines,
)
from graft_server.depot.service import DepotService
from graft_server.depot.uploads import Uploads
from graft_server.mailbox import Mailbox
from graft_server.model_store import DirectoryStore

__all__ = ["SERVICE", "DepotServer", "DepotSettings", "folder_credentials", "tls_credentials"]
_HANDSHAKE_MS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DepotSettings:
    """The depot's limits."""

    max_concurrent: int = 16  # calls served at once
    max_waiting: int = 1024  # calls that wait for a thread; devices retry what is refused
    max_finishing: int = 2  # pushes joined and split at once, each on a core and some dozen MB
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    quota: DeviceQuota | None = None  # of each device; None: DEVICE_QUOTA with TLS, else no limits
    idle_s: float = 120.0  # a stream is cut off after that, later by what it moves
    min_bytes_per_s: float = 1024.0
    # None: in the store's folder, or in a temporary one for a store on another machine.
    incoming_folder: Path | None = None
    incoming_max_age_s: float = 24 * 3600.0  # an unfinished push without data is then removed
    incoming_max_bytes: int = 8 * MAX_PAYLOAD_BYTES  # in all; beyond it the oldest are removed
    keepalive_s: float = 60.0  # a connection that is silent so long is pinged


class DepotServer:
    """A running depot; ``close`` (or leaving its ``with`` block) stops it.

    ``address``: "host:port" to listen on; port 0 takes a free one (``port``). ``allows`` and
    ``record``: as of ``DepotInterceptor``; a device is named by its certificate's common name,
    without one by its address. ``open_order(device)``: for which order it may push, None for no
    order; without it any device may push. ``mailbox`` has the orders that devices attend to.
    ``clock`` and ``now``: monotonic and wall-clock
    seconds. Raises ValueError where both or neither of ``credentials`` and ``insecure`` are given.
    """

    def __init__(
        self,
        store: DirectoryStore,
        address: str,
        *,
        credentials: grpc.ServerCredentials | None = None,
        insecure: bool = False,
        settings: DepotSettings | None = None,
        allows: Callable[[str], bool] | None = None,
        open_order: Callable[[str], str | None] | None = None,
        mailbox: Mailbox | None = None,
        registry: CollectorRegistry | None = None,
        record: Callable[[CallRecord], None] = lambda call: None,
        clock: Clock = time.monotonic,
        now: Callable[[], float] = time.time,
        turn_away: Callable[[str], None] = lambda reason: None,
    ) -> None:
        if (credentials is None) is not insecure:
            raise ValueError("depot: give TLS credentials, or ask for insecure; not both")
        settings = settings or DepotSettings()
        quota = settings.quota or (DEVICE_QUOTA if credentials else DeviceQuota())
        self._deadlines = StreamDeadlines(settings.idle_s, settings.min_bytes_per_s, clock)
        metrics = DepotMetrics(registry or CollectorRegistry())
        interceptor = DepotInterceptor(
            allows=allows,
            quotas=RateLimiter(quota, clock),
            metrics=metrics,
            record=record,
            clock=clock,
            deadlines=self._deadlines,
            turn_away=turn_away,
        )
        self._server = grpc.server(
            _CountedPool(settings.max_concurrent, metrics.waiting),
            interceptors=[interceptor],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),  # a second depot on the port must fail, not share
                ("grpc.keepalive_time_ms", int(1000 * settings.keepalive_s)),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            ],
            maximum_concurrent_rpcs=settings.max_concurrent + settings.max_waiting,
        )
        incoming = settings.incoming_folder or _incoming_folder(store)
        self._stored: StoredBytes | None = None
        if quota.stored_bytes is not None:
            stored = incoming / "stored.jsonl"
            self._stored = StoredBytes(stored, quota.stored_bytes, store.__contains__)
        uploads = Uploads(
            incoming,
            max_age_s=settings.incoming_max_age_s,
            max_bytes=settings.incoming_max_bytes,
            now=now,
        )
        service = DepotService(
            store,
            uploads,
            settings.max_payload_bytes,
            threading.BoundedSemaphore(settings.max_finishing),
            open_order,
            self._stored,
            mailbox,
        )
        pb_grpc.add_DepotServicer_to_server(service, self._server)  # type: ignore[no-untyped-call]
        self._health = health.HealthServicer()
        self._health.Check = _reserved(self._health.Check)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)

    def __enter__(self) -> "DepotServer":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Serve from now on; health checks report it."""
        self._server.start()
        self._deadlines.start()
        for service in ("", SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def close(self, grace_s: float = 0.0) -> None:
        """Stop; streams still running after ``grace_s`` seconds are cancelled."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()
        self._deadlines.close()
        if self._stored is not None:
            self._stored.close()


def tls_credentials(
    *, key_pem: bytes, certificate_pem: bytes, client_ca_pem: bytes | None = None
) -> grpc.ServerCredentials:
    """The depot's TLS identity; with ``client_ca_pem`` clients need a certificate of that CA."""
    return grpc.ssl_server_credentials(
        [(key_pem, certificate_pem)],
        root_certificates=client_ca_pem,
        require_client_auth=client_ca_pem is not None,
    )


def folder_credentials(folder: Path) -> grpc.ServerCredentials:
    """The TLS identity in a server's folder; clients need a certificate of its ca.pem.

    A certificate that is renewed there is served from the next connection on.
    """

    def written_ns() -> int:
        return (folder / "tls.pem").stat().st_mtime_ns  # its key precedes it

    def configuration() -> grpc.ServerCertificateConfiguration:
        pair = (folder / "tls.key").read_bytes(), (folder / "tls.pem").read_bytes()
        return grpc.ssl_server_certificate_configuration([pair], (folder / "ca.pem").read_bytes())

    served_ns = written_ns()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served_ns
        if served_ns == (now_ns := written_ns()):
            return None
        served_ns = now_ns
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(), renewed, require_client_authentication=True
    )


def _reserved(check: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A handler with a thread of its own, whatever the others wait for."""

    def reserved(request: Any, context: grpc.ServicerContext) -> Any:
        return check(request, context)

    reserved.experimental_thread_pool = ThreadPoolExecutor(1, "health")  # type: ignore[attr-defined]
    return reserved


def _incoming_folder(store: DirectoryStore) -> Path:
    if isinstance(store.folder, Path):
        return store.folder / "incoming"
    return Path(tempfile.mkdtemp(prefix="graft-incoming-"))


class _CountedPool(ThreadPoolExecutor):
    """Threads that serve calls; ``waiting`` is how many calls have none yet."""

    def __init__(self, max_workers: int, waiting: Gauge) -> None:
        super().__init__(max_workers=max_workers, thread_name_prefix="depot")
        self._waiting = waiting

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._waiting.inc()

        def begin() -> Any:
            self._waiting.dec()
            return fn(*args, **kwargs)

        return super().submit(begin)
