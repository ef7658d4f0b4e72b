"""The model depot: a gRPC service that streams models out of and into the server's store."""

import threading
from collections.abc import Iterator
from concurrent import futures
from typing import NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from graft.errors import (
    ArchitectureError,
    GraftError,
    ModelMissingError,
    PayloadError,
    PayloadLimitError,
    PayloadTruncatedError,
)
from graft.wire.checks import is_model_id
from graft.wire.link import CHUNK_BYTES, PART_CODES, Part
from graft.wire.parts import join_parts, read_base_header
from graft.wire.payload import MAX_PAYLOAD_BYTES, read_header
from graft.wire.stubs import depot_pb2 as pb
from graft.wire.stubs import depot_pb2_grpc as pb_grpc
from server.store import DirectoryStore

SERVICE = "graft.v1.Depot"
_PARTS: dict[int, Part] = {code: part for part, code in PART_CODES.items()}
# One message never exceeds a chunk and its few bytes of framing, whatever a client tries.
_MAX_MESSAGE_BYTES = 2 * CHUNK_BYTES


class DepotServer:
    """A running depot; ``close`` (or leaving its ``with`` block) stops it.

    ``credentials``: TLS; None only together with ``insecure=True``, else ValueError.
    ``max_concurrent``: streams served at once; ``max_waiting`` more wait their turn, and any
    beyond are turned away to try again.
    ``max_payload_bytes``: the largest model taken in; at most ``max_pushes`` are held in memory
    at once, fetches stream from the file.
    """

    def __init__(
        self,
        store: DirectoryStore,
        address: str,
        *,
        credentials: grpc.ServerCredentials | None = None,
        insecure: bool = False,
        max_concurrent: int = 16,
        max_waiting: int = 1024,
        max_pushes: int = 4,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        if (credentials is None) is not insecure:
            raise ValueError("depot: give TLS credentials, or ask for insecure; not both")
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=max_concurrent, thread_name_prefix="depot"),
            options=[
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),  # a second depot on the port must fail, not share
            ],
            maximum_concurrent_rpcs=max_concurrent + max_waiting,
        )
        servicer = _Depot(store, max_payload_bytes, threading.BoundedSemaphore(max_pushes))
        pb_grpc.add_DepotServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call]
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


class _Depot(pb_grpc.DepotServicer):
    def __init__(
        self, store: DirectoryStore, max_payload_bytes: int, pushes: threading.BoundedSemaphore
    ) -> None:
        self._store = store
        self._max_payload_bytes = max_payload_bytes
        self._pushes = pushes

    def Fetch(  # noqa: N802
        self, request: pb.FetchRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.Chunk]:
        part = _PARTS.get(request.part)
        if part is None or not is_model_id(request.model_id):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "wanted a model id and a part")
            raise AssertionError("abort always raises")
        try:
            path = self._store.path(request.model_id, part)
            with path.open("rb") as file:
                if request.offset > path.stat().st_size:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "offset is behind the end")
                file.seek(request.offset)
                while data := file.read(CHUNK_BYTES):
                    yield pb.Chunk(data=data)
        except (GraftError, OSError) as error:
            _abort(context, error)

    def Push(  # noqa: N802
        self, request_iterator: Iterator[pb.PushChunk], context: grpc.ServicerContext
    ) -> pb.ModelStat:
        with self._pushes:
            try:
                payload = self._receive(request_iterator)
                architecture, _, _ = read_header(payload)
                return self._stat(self._store.put(payload, architecture))
            except (GraftError, OSError) as error:
                _abort(context, error)

    def Stat(  # noqa: N802
        self, request: pb.StatRequest, context: grpc.ServicerContext
    ) -> pb.ModelStat:
        try:
            return self._stat(request.model_id)
        except (GraftError, OSError) as error:
            _abort(context, error)

    def _receive(self, messages: Iterator[pb.PushChunk]) -> bytes:
        """The pushed payload, never holding more than its header announced."""
        first = next(messages, None)
        if first is None or first.WhichOneof("content") != "header":
            raise PayloadLimitError("push: wanted a header first")
        header = first.header
        lengths = [header.exact_bytes] if header.exact_bytes else []
        if header.base_bytes or header.residual_bytes:
            lengths += [header.base_bytes, header.residual_bytes]
        announced = sum(lengths)
        if len(lengths) not in (1, 2) or announced > self._max_payload_bytes:
            raise PayloadLimitError(
                f"push: announces {announced} bytes, limit {self._max_payload_bytes}"
            )
        received = bytearray()
        for message in messages:
            if message.WhichOneof("content") != "data":
                raise PayloadLimitError("push: wanted data behind the header")
            received += message.data
            if len(received) > announced:
                raise PayloadLimitError(f"push: more than the {announced} bytes announced")
        if len(received) < announced:
            raise PayloadTruncatedError(f"push: got {len(received)} of {announced} bytes")
        content = bytes(received)
        if len(lengths) == 1:
            return content
        base, residual = content[: lengths[0]], content[lengths[0] :]
        architecture, _ = read_base_header(base)
        payload = join_parts(base, residual, self._store.shapes_of(architecture))
        if len(payload) > self._max_payload_bytes:  # parts are compressed: small may grow large
            raise PayloadLimitError(f"push: a payload of {len(payload)} bytes is over the limit")
        return payload

    def _stat(self, name: str) -> pb.ModelStat:
        sizes = {part: self._store.num_bytes(name, part) for part in PART_CODES}
        return pb.ModelStat(
            model_id=name,
            payload_bytes=sizes["exact"],
            base_bytes=sizes["base"],
            residual_bytes=sizes["residual"],
        )


def _abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """End the call with the status that the client's link turns back into the typed error."""
    if isinstance(error, ModelMissingError):
        code = grpc.StatusCode.NOT_FOUND
    elif isinstance(error, PayloadLimitError | ArchitectureError):
        code = grpc.StatusCode.INVALID_ARGUMENT
    elif isinstance(error, PayloadError):
        code = grpc.StatusCode.DATA_LOSS
    else:
        code = grpc.StatusCode.INTERNAL
    context.abort(code, f"{type(error).__name__}: {error}")
    raise AssertionError("abort always raises")
