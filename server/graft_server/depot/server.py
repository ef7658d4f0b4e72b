"""The model depot: a gRPC service that streams models out of and into the server's store."""

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from graft.core.ports import Clock
from graft.wire.payload.encoding import MAX_PAYLOAD_BYTES
from graft.wire.stubs import depot_pb2_grpc as pb_grpc
from graft_server.depot.interceptor import SERVICE, CallRecord, DepotInterceptor
from graft_server.depot.metrics import CountedPool, DepotMetrics
from graft_server.depot.rate_limit import MAX_MESSAGE_BYTES, DeviceQuota, RateLimiter
from graft_server.depot.service import DepotService
from graft_server.depot.uploads import Uploads
from graft_server.model_store import DirectoryStore

__all__ = ["SERVICE", "DepotServer", "DepotSettings", "tls_credentials"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DepotSettings:
    """The depot's limits.

    ``max_concurrent``: streams served at once; ``max_waiting`` more wait their turn, and any
    beyond are turned away to try again. ``max_finishing``: pushes that are joined, checked and
    split at once; each takes a core and a few dozen MB. ``max_payload_bytes``: the largest model
    taken in. ``quota``: for each device by itself. ``incoming_folder``: where pushes arrive (None:
    in the store's folder, or for a store elsewhere in a temporary one); what nobody went on with
    for ``incoming_max_age_s`` goes, and the oldest beyond ``incoming_max_bytes`` in all.
    ``keepalive_s``: how long a device may be silent before the depot asks whether it is there.
    """

    max_concurrent: int = 16
    max_waiting: int = 1024
    max_finishing: int = 2
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    quota: DeviceQuota = field(default_factory=DeviceQuota)
    incoming_folder: Path | None = None
    incoming_max_age_s: float = 24 * 3600.0
    incoming_max_bytes: int = 8 * MAX_PAYLOAD_BYTES
    keepalive_s: float = 60.0


class DepotServer:
    """A running depot; ``close`` (or leaving its ``with`` block) stops it.

    ``credentials``: TLS; None only together with ``insecure=True``, else ValueError.
    ``allows(device)``: whether a device of this name is served (None: everyone); a device is named
    by its certificate's common name, without one by its address. ``registry`` takes the metrics;
    ``record`` gets one record a call when it ends, on the thread that served it.
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
        registry: CollectorRegistry | None = None,
        record: Callable[[CallRecord], None] = lambda call: None,
        clock: Clock = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        if (credentials is None) is not insecure:
            raise ValueError("depot: give TLS credentials, or ask for insecure; not both")
        settings = settings or DepotSettings()
        metrics = DepotMetrics(registry or CollectorRegistry())
        watch = DepotInterceptor(
            allows=allows,
            quotas=RateLimiter(settings.quota, clock),
            metrics=metrics,
            record=record,
            clock=clock,
        )
        self._server = grpc.server(
            CountedPool(settings.max_concurrent, metrics.waiting),
            interceptors=[watch],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),  # a second depot on the port must fail, not share
                ("grpc.keepalive_time_ms", int(1000 * settings.keepalive_s)),
            ],
            maximum_concurrent_rpcs=settings.max_concurrent + settings.max_waiting,
        )
        incoming = Uploads(
            settings.incoming_folder or _incoming_folder(store),
            max_age_s=settings.incoming_max_age_s,
            max_bytes=settings.incoming_max_bytes,
            now=now,
        )
        service = DepotService(
            store,
            incoming,
            settings.max_payload_bytes,
            threading.BoundedSemaphore(settings.max_finishing),
        )
        pb_grpc.add_DepotServicer_to_server(service, self._server)  # type: ignore[no-untyped-call]
        self._health = health.HealthServicer()
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
        """Serve from now on, and say so to health checks."""
        self._server.start()
        for service in ("", SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def close(self, grace_s: float = 0.0) -> None:
        """Stop; streams still running after ``grace_s`` seconds are cut."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()


def tls_credentials(
    *, key_pem: bytes, certificate_pem: bytes, client_ca_pem: bytes | None = None
) -> grpc.ServerCredentials:
    """The depot's TLS identity; with ``client_ca_pem`` every client must show a certificate."""
    return grpc.ssl_server_credentials(
        [(key_pem, certificate_pem)],
        root_certificates=client_ca_pem,
        require_client_auth=client_ca_pem is not None,
    )


def _incoming_folder(store: DirectoryStore) -> Path:
    if isinstance(store.folder, Path):
        return store.folder / "incoming"
    return Path(tempfile.mkdtemp(prefix="graft-incoming-"))
