"""gRPC interceptor of the depot: authorisation, rate limits, metrics and an access log."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from graft.core.ports import Clock
from graft.errors import (
    ArchitectureError,
    DeviceRefusedError,
    GraftError,
    MessageError,
    ModelMissingError,
    PayloadError,
    PayloadLimitError,
    QuotaExceededError,
    TransportError,
)
from graft.wire.overhead import framed_bytes, stream_bytes
from graft.wire.stubs import depot_pb2 as pb
from graft.wire.transfer.link import PART_CODES, RETRY_AFTER, Part
from graft_server.depot.rate_limit import RateLimiter, StreamDeadline, StreamDeadlines

SERVICE: Final = "graft.v1.Depot"
PARTS: Final[dict[int, Part]] = {code: part for part, code in PART_CODES.items()}
Direction = Literal["up", "down"]
_INTERNAL: Final = grpc.StatusCode.INTERNAL
# Of errors of one kind the narrower comes first.
_STATUS: Final[tuple[tuple[type[GraftError], grpc.StatusCode], ...]] = (
    (QuotaExceededError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (DeviceRefusedError, grpc.StatusCode.PERMISSION_DENIED),
    (ModelMissingError, grpc.StatusCode.NOT_FOUND),
    (TransportError, grpc.StatusCode.ABORTED),
    (PayloadLimitError, grpc.StatusCode.INVALID_ARGUMENT),
    (ArchitectureError, grpc.StatusCode.INVALID_ARGUMENT),
    (PayloadError, grpc.StatusCode.DATA_LOSS),
    (MessageError, grpc.StatusCode.INVALID_ARGUMENT),
)
_SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)


class DepotMetrics:
    """The depot's Prometheus metrics, all named ``graft_depot_...``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        moved = ("direction", "part", "device")
        self.payload_bytes = Counter(
            "graft_depot_payload_bytes", "Model bytes moved", moved, registry=registry
        )
        self.wire_bytes = Counter(
            "graft_depot_wire_bytes", "The same with gRPC's framing", moved, registry=registry
        )
        self.calls = Counter(
            "graft_depot_calls", "Calls that ended", ("rpc", "outcome"), registry=registry
        )
        self.running = Gauge("graft_depot_running", "Calls running", ("rpc",), registry=registry)
        self.waiting = Gauge("graft_depot_waiting", "Calls in the queue", registry=registry)
        self.seconds = Histogram(
            "graft_depot_seconds", "Time a call ran", ("rpc",), buckets=_SECONDS, registry=registry
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CallRecord:
    """A line of the access log: one call, when it ended.

    ``part``: "base", "residual", "exact", "base+residual" for a push of both, "" for none.
    ``wire_bytes``: of all its messages, both ways, with gRPC's framing. ``outcome``: gRPC's name
    of the status, "CANCELLED" where the device disconnected.
    """

    device: str
    rpc: str
    model_id: str
    part: str
    payload_bytes: int
    wire_bytes: int
    seconds: float
    outcome: str


def device_of(context: grpc.ServicerContext) -> str:
    """The caller: its certificate's common name, else the peer's address without port."""
    names = context.auth_context().get("x509_common_name")
    if names:
        return str(names[0].decode("utf-8", "replace"))
    return str(context.peer()).rpartition(":")[0]


def _status_of(error: Exception) -> grpc.StatusCode:
    """The status that ``GrpcLink`` turns back into the typed error."""
    return next((code for kind, code in _STATUS if isinstance(error, kind)), _INTERNAL)


def end_call(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """End a call with the status of an error."""
    if isinstance(error, QuotaExceededError):
        context.set_trailing_metadata(((RETRY_AFTER, f"{error.retry_after_s:.3f}"),))
    context.abort(_status_of(error), f"{type(error).__name__}: {error}")
    raise AssertionError("abort always raises")


class DepotInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Refuses unknown devices, charges quotas message by message, and records every call.

    ``allows(device)``: whether the depot serves a device of this name; None: every device.
    ``record`` gets one record a call when it ends, on the thread that served it. ``max_attending``
    devices wait for orders at once, beside the depot's other threads.
    """

    def __init__(
        self,
        *,
        allows: Callable[[str], bool] | None,
        quotas: RateLimiter,
        metrics: DepotMetrics,
        record: Callable[[CallRecord], None],
        clock: Clock,
        deadlines: StreamDeadlines,
        turn_away: Callable[[str], None] = lambda reason: None,
        max_attending: int = 256,
    ) -> None:
        self.attending = ThreadPoolExecutor(max_attending, "attending")
        self.allows = allows
        self.quotas = quotas
        self.metrics = metrics
        self.record = record
        self.clock = clock
        self.deadlines = deadlines
        self.turn_away = turn_away

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """The depot's own handlers, observed; health checks are passed through."""
        handler = continuation(details)
        service, _, rpc = details.method.lstrip("/").partition("/")
        if handler is None or service != SERVICE:
            return handler
        codecs = (handler.request_deserializer, handler.response_serializer)

        def fetch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._running(rpc, context) as call:
                (request,) = call.received(iter([request]))
                for message in handler.unary_stream(request, context):
                    yield call.sent(message)

        def push(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._running(rpc, context) as call:
                return call.sent(handler.stream_unary(call.received(messages), context))

        def ask(request: Any, context: grpc.ServicerContext) -> Any:
            with self._running(rpc, context) as call:
                (request,) = call.received(iter([request]))
                return call.sent(handler.unary_unary(request, context))

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(fetch, *codecs)
        if handler.request_streaming:
            if rpc == "Attend":  # it waits, and must not keep a transfer waiting
                push.experimental_thread_pool = self.attending  # type: ignore[attr-defined]
            return grpc.stream_unary_rpc_method_handler(push, *codecs)
        return grpc.unary_unary_rpc_method_handler(ask, *codecs)

    @contextmanager
    def _running(self, rpc: str, context: grpc.ServicerContext) -> Iterator["_Call"]:
        call = _Call(self, device_of(context), rpc)
        start_s, outcome = self.clock(), "CANCELLED"  # what a stream that is no longer read ends in
        refused = ""
        self.metrics.running.labels(rpc).inc()
        try:
            if self.allows is not None and not self.allows(call.device):
                raise DeviceRefusedError(f"{call.device}: this depot does not serve it")
            if rpc in ("Fetch", "Push", "Attend"):
                with (
                    self.quotas.stream(call.device),
                    self.deadlines.watch(context.cancel) as call.deadline,
                ):
                    yield call
            else:
                yield call
            outcome = "OK"
        except GraftError as error:
            outcome = refused = _status_of(error).name
            end_call(context, error)
        except grpc.RpcError:
            raise
        except Exception:
            code = context.code()
            outcome = "UNKNOWN" if code is None else code.name
            refused = outcome if code is not None else ""  # by the service
            raise
        finally:
            if call.deadline is not None and call.deadline.is_cut_off:
                outcome, refused = "DEADLINE_EXCEEDED", "idle"
            if refused:
                self.turn_away(refused.lower())
            self.metrics.running.labels(rpc).dec()
            self.metrics.calls.labels(rpc, outcome).inc()
            seconds = self.clock() - start_s
            self.metrics.seconds.labels(rpc).observe(seconds)
            self.record(call.ended(seconds, outcome))


class _Call:
    """The bytes that one call has moved so far."""

    def __init__(self, interceptor: DepotInterceptor, device: str, rpc: str) -> None:
        self.device = device
        self._interceptor = interceptor
        self._rpc = rpc
        self._model_id = ""
        self._forms: list[tuple[Part, int]] = []  # the forms of a push, and the bytes left of each
        self._part = ""
        self._payload_bytes = self._wire_bytes = 0
        self.deadline: StreamDeadline | None = None

    def received(self, messages: Iterator[Any]) -> Iterator[Any]:
        """The device's messages, counted as the handler takes them."""
        for message in messages:
            if isinstance(message, pb.AttendChunk):
                if message.data:
                    self._interceptor.quotas.charge(self.device, len(message.data))
                self._moved("up", message, 0)
            elif isinstance(message, pb.PushChunk):
                if message.WhichOneof("content") == "header":
                    self._announced(message.header)
                self._moved("up", message, len(message.data))
            else:
                self._model_id = message.model_id[:80]
                if isinstance(message, pb.PushHeader):
                    self._announced(message)
                elif isinstance(message, pb.FetchRequest):
                    self._part = PARTS.get(message.part, "")
                self._moved("up", message, 0)
            yield message
        if self.deadline is not None and self._rpc in ("Push", "Attend"):
            self.deadline.is_whole()

    def sent(self, message: Any) -> Any:
        """A message of the depot, counted."""
        self._moved("down", message, len(message.data) if isinstance(message, pb.Chunk) else 0)
        return message

    def ended(self, seconds: float, outcome: str) -> CallRecord:
        return CallRecord(
            device=self.device,
            rpc=self._rpc,
            model_id=self._model_id,
            part=self._part,
            payload_bytes=self._payload_bytes,
            wire_bytes=self._wire_bytes,
            seconds=seconds,
            outcome=outcome,
        )

    def _announced(self, header: pb.PushHeader) -> None:
        self._model_id = header.model_id[:80]
        at = 0
        lengths: dict[Part, int] = {
            "exact": header.exact_bytes,
            "base": header.base_bytes,
            "residual": header.residual_bytes,
        }
        for part, num_bytes in lengths.items():
            self._forms.append((part, max(0, num_bytes - max(0, header.offset - at))))
            at += num_bytes
        self._part = "+".join(part for part, num_bytes in lengths.items() if num_bytes)

    def _moved(self, direction: Direction, message: Any, num_bytes: int) -> None:
        if num_bytes:
            self._interceptor.quotas.charge(self.device, num_bytes)
        wire_bytes = stream_bytes(framed_bytes(message.ByteSize()))
        if self.deadline is not None:
            self.deadline.moved(wire_bytes)
        self._payload_bytes += num_bytes
        self._wire_bytes += wire_bytes
        part = self._part_of(num_bytes) if self._rpc == "Push" else self._part
        labels = (direction, part, self.device)
        self._interceptor.metrics.payload_bytes.labels(*labels).inc(num_bytes)
        self._interceptor.metrics.wire_bytes.labels(*labels).inc(wire_bytes)

    def _part_of(self, num_bytes: int) -> str:
        """The form that the next bytes of a push belong to; of a message across two, the first."""
        while self._forms and not self._forms[0][1]:
            self._forms.pop(0)
        if not self._forms:
            return self._part
        part, left = self._forms[0]
        self._forms[0] = (part, max(0, left - num_bytes))
        return part
