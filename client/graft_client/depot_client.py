"""A device's connection to the model depot over gRPC."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import grpc

from graft.core.addresses import is_own_machine, split_host
from graft.core.deployment import DeviceSettings
from graft.errors import (
    DeviceRefusedError,
    ModelMissingError,
    PayloadChangedError,
    PayloadLimitError,
    PayloadTruncatedError,
    QuotaExceededError,
    TransportError,
)
from graft.wire.overhead import DepotCalls, framed_bytes, stream_bytes
from graft.wire.stubs import depot_pb2 as pb
from graft.wire.stubs import depot_pb2_grpc as pb_grpc
from graft.wire.transfer.cache import FolderCache
from graft.wire.transfer.link import (
    CHUNK_BYTES,
    PART_CODES,
    RETRY_AFTER,
    Chunk,
    Part,
    Progress,
    Received,
    StoredModel,
    UploadPlan,
    WireSource,
)

# An order is one message, of a request and the catalogue's snapshot.
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_LONGEST_WAIT_S: Final = 24 * 3600.0
_STAT_S: Final = 20.0
_ATTEND_S: Final = 180.0  # the depot's 25 s of waiting, on a link that takes long


def open_channel(
    address: str,
    *,
    root_ca_pem: bytes | None = None,
    identity_pem: tuple[bytes, bytes] | None = None,
    insecure: bool = False,
) -> grpc.Channel:
    """A channel to the depot; TLS against ``root_ca_pem`` unless insecure is asked for by name.

    ``identity_pem``: the device's own key and certificate, for a depot that asks for one.
    Raises ValueError where both or neither are given. A client that lost the depot knocks
    again at least once a second, so that a restarted depot is found soon; a connection may take
    two minutes, so that one is made over a link whose answers take ten seconds.
    """
    if (root_ca_pem is None) is not insecure:
        raise ValueError("channel: give a CA certificate, or ask for insecure; not both")
    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # gRPC's word for how long making a connection may take; its own 20 s are two round trips
        # of such a link, where TCP and TLS want three.
        ("grpc.min_reconnect_backoff_ms", 120_000),
        # A proxy of the site is for calls to other machines.
        ("grpc.enable_http_proxy", 0 if is_own_machine(split_host(address)) else 1),
    ]
    if root_ca_pem is None:
        return grpc.insecure_channel(address, options)
    key_pem, certificate_pem = identity_pem or (None, None)
    credentials = grpc.ssl_channel_credentials(root_ca_pem, key_pem, certificate_pem)
    return grpc.secure_channel(address, credentials, options)


def open_deployed_channel(address: str, folder: Path, *, insecure: bool) -> grpc.Channel:
    """A channel to a deployment's depot by what a folder of it holds: ca.pem, tls.key, tls.pem."""
    if insecure:
        return open_channel(address, insecure=True)
    return open_channel(
        address,
        root_ca_pem=(folder / "ca.pem").read_bytes(),
        identity_pem=((folder / "tls.key").read_bytes(), (folder / "tls.pem").read_bytes()),
    )


def growing_wait(
    sleep: Callable[[float], None], *, first_s: float = 0.25, limit_s: float = 8.0
) -> Callable[[int], None]:
    """A ``wait_before_retry``: ``first_s`` after one attempt, doubling up to ``limit_s``."""

    def wait(attempts: int) -> None:
        sleep(min(first_s * 2 ** (attempts - 1), limit_s))

    return wait


class GrpcLink:
    """``Link`` to a depot; wire bytes are those of the messages serialised on this stream, with
    the frames, records and segments that their lengths take.

    ``timeout_s`` bounds each whole stream. A depot that does not answer is a TransportError at
    once: waiting and trying again is the transport's part.
    """

    wire_source: WireSource = "measured"

    def __init__(self, channel: grpc.Channel, *, timeout_s: float = 600.0) -> None:
        self._stub = pb_grpc.DepotStub(channel)  # type: ignore[no-untyped-call]
        self._timeout_s = timeout_s
        self._calls = DepotCalls()

    def read(self, model_id: str, part: Part, offset: int) -> Iterator[Chunk]:
        request = pb.FetchRequest(model_id=model_id, part=PART_CODES[part], offset=offset)
        overhead = self._calls.fetch_bytes()
        call = self._stub.Fetch(request, timeout=self._timeout_s)
        try:
            for chunk in call:
                wire_bytes = overhead + stream_bytes(framed_bytes(chunk.ByteSize()))
                yield Chunk(data=chunk.data, wire_bytes=wire_bytes)
                overhead = 0
        except grpc.RpcError as error:
            _raise_typed(error, f"fetch {part} of {model_id}")
        finally:
            call.cancel()

    def stores(self, model_id: str) -> bool:
        """Whether the depot has a model; raises TransportError where it does not answer."""
        try:
            self._stub.Stat(pb.StatRequest(model_id=model_id), timeout=_STAT_S)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                _raise_typed(error, f"look up {model_id}")
            return False
        return True

    def received(self, upload: UploadPlan) -> Received:
        try:
            state = self._stub.Received(_push_header(upload, 0), timeout=self._timeout_s)
        except grpc.RpcError as error:
            _raise_typed(error, f"push of {upload.model_id}")
        stored = _stored_model(state.stored) if state.HasField("stored") else None
        return Received(num_bytes=min(state.received_bytes, upload.num_bytes), stored=stored)

    def send(self, upload: UploadPlan, offset: int, progress: Progress) -> StoredModel:
        messages = _push_messages(upload, offset, self._calls.push_bytes(), progress)
        try:
            return _stored_model(self._stub.Push(messages, timeout=self._timeout_s))
        except grpc.RpcError as error:
            _raise_typed(error, f"push of {upload.model_id}")

    def attend(
        self, session: str, domain_id: str, answered: str, parts: Mapping[str, bytes]
    ) -> pb.Order:
        """Deliver the parts of the answer to the order ``answered``, "" for none; the next order.

        Raises TransportError where it broke off: the same call may be made again.
        """
        try:
            order: pb.Order = self._stub.Attend(
                _attend_messages(session, domain_id, answered, parts), timeout=_ATTEND_S
            )
        except grpc.RpcError as error:
            _raise_typed(error, f"orders of {domain_id}")
        self._calls.is_connected = True  # the server charges the connection to the first request
        return order


def remove_missing(cache: FolderCache, link: GrpcLink) -> list[str]:
    """Remove the models from a cache that the depot has no more, as after a forgetting.

    Returns their ids; raises TransportError where the depot does not answer.
    """
    gone = [model_id for model_id in sorted(cache.finished_models()) if not link.stores(model_id)]
    for model_id in gone:
        cache.forget(model_id)
    return gone


def device_cache(folder: Path, settings: DeviceSettings) -> FolderCache:
    """The models that a device has received."""
    return FolderCache(folder / "state" / "cache", settings.cache_bytes)


def clean_cache(folder: Path, settings: DeviceSettings) -> list[str]:
    """Remove forgotten models from a device's cache, where the depot answers; returns their ids."""
    with (
        suppress(TransportError),
        open_deployed_channel(settings.depot, folder, insecure=settings.insecure) as channel,
    ):
        return remove_missing(device_cache(folder, settings), GrpcLink(channel))
    return []


def _attend_messages(
    session: str, domain_id: str, answered: str, parts: Mapping[str, bytes]
) -> Iterator[pb.AttendChunk]:
    answer = pb.Answer(parts=dict(parts)).SerializeToString() if answered else b""
    header = pb.AttendHeader(
        session=session, answered=answered, answer_bytes=len(answer), domain=domain_id
    )
    yield pb.AttendChunk(header=header)
    for start in range(0, len(answer), CHUNK_BYTES):
        yield pb.AttendChunk(data=answer[start : start + CHUNK_BYTES])


def _push_header(upload: UploadPlan, offset: int) -> pb.PushHeader:
    lengths = {f"{part}_bytes": num_bytes for part, num_bytes in upload.model.forms().items()}
    return pb.PushHeader(model_id=upload.model_id, offset=offset, **lengths)


def _push_messages(
    upload: UploadPlan, offset: int, overhead: int, progress: Progress
) -> Iterator[pb.PushChunk]:
    """The header and the rest in chunks; each is counted when the stream takes it."""
    yield pb.PushChunk(header=_push_header(upload, offset))
    for part, data in upload.chunks(offset):
        message = pb.PushChunk(data=data)
        wire_bytes = overhead + stream_bytes(framed_bytes(message.ByteSize()))
        progress(part, len(data), wire_bytes)
        overhead = 0
        yield message


def _stored_model(stat: pb.ModelStat) -> StoredModel:
    return StoredModel(
        model_id=stat.model_id,
        payload_bytes=stat.payload_bytes,
        base_bytes=stat.base_bytes,
        residual_bytes=stat.residual_bytes,
    )


def _raise_typed(error: grpc.RpcError, what: str) -> NoReturn:
    """Raise the error that a status stands for; any other status is a broken stream."""
    code, details = error.code(), f"{what}: {error.details()}"
    if code == grpc.StatusCode.NOT_FOUND:
        raise ModelMissingError(details) from error
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        raise PayloadLimitError(details) from error
    if code == grpc.StatusCode.DATA_LOSS:
        kind = PayloadTruncatedError if "Truncated" in details else PayloadChangedError
        raise kind(details) from error
    if code == grpc.StatusCode.PERMISSION_DENIED:
        raise DeviceRefusedError(details) from error
    if (
        code == grpc.StatusCode.RESOURCE_EXHAUSTED
        and (wait_s := _requested_wait_s(error)) is not None
    ):
        raise QuotaExceededError(details, wait_s) from error
    raise TransportError(f"{details} ({code.name})") from error


def _requested_wait_s(error: grpc.RpcError) -> float | None:
    """The seconds that a depot tells a device to wait, within reason; None: it tells nothing."""
    for key, value in error.trailing_metadata() or ():
        if key == RETRY_AFTER:
            try:
                return min(max(float(value), 0.0), _LONGEST_WAIT_S)
            except ValueError:
                return None
    return None
