"""The depot's RPCs: models out of the store and into it, with one block of a model in memory."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import grpc

from graft.core.files import working_file
from graft.core.payload import check_payload, check_shapes, payload_bytes_of, read_header
from graft.core.tensor_types import Shapes
from graft.errors import (
    ArchitectureError,
    DeviceRefusedError,
    GraftError,
    PayloadChangedError,
    PayloadError,
    PayloadLimitError,
    PayloadTruncatedError,
)
from graft.wire.messages.checks import is_model_id
from graft.wire.payload.blocks import PartFile, work_folder
from graft.wire.payload.parts import join_files, read_base_header
from graft.wire.stubs import depot_pb2 as pb
from graft.wire.stubs import depot_pb2_grpc as pb_grpc
from graft.wire.transfer.link import CHUNK_BYTES, PART_CODES
from graft_server.depot.interceptor import PARTS, device_of, end_call
from graft_server.depot.rate_limit import StoredBytes
from graft_server.depot.uploads import WORK_PREFIX, PendingPush, Uploads
from graft_server.mailbox import MAX_ANSWER_BYTES, Mailbox
from graft_server.model_store import DirectoryStore


@contextmanager
def _typed(context: grpc.ServicerContext) -> Iterator[None]:
    """End the call with the status of what the block raises."""
    try:
        yield
    except (GraftError, OSError) as error:
        end_call(context, error)


class DepotService(pb_grpc.DepotServicer):
    """The depot's service; ``finishing`` bounds how many pushes are joined and split at once.

    ``open_order`` and ``mailbox``: as of ``DepotServer``; a call of ``Attend`` waits for an order
    for ``hold_s``.
    """

    def __init__(
        self,
        store: DirectoryStore,
        uploads: Uploads,
        max_payload_bytes: int,
        finishing: threading.BoundedSemaphore,
        open_order: Callable[[str], str | None] | None = None,
        stored: StoredBytes | None = None,
        mailbox: Mailbox | None = None,
        hold_s: float = 25.0,
    ) -> None:
        self._store = store
        self._uploads = uploads
        self._max_payload_bytes = max_payload_bytes
        self._finishing = finishing
        self._open_order = open_order
        self._stored = stored
        self._mailbox = mailbox
        self._hold_s = hold_s
        self._attending: dict[str, object] = {}  # each device's newest call

    def Fetch(  # noqa: N802
        self, request: pb.FetchRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.Chunk]:
        with _typed(context):
            part = PARTS.get(request.part)
            if part is None or not is_model_id(request.model_id):
                raise PayloadLimitError("wanted a model id and a part")
            path = self._store.path(request.model_id, part)
            with path.open("rb") as file:
                if request.offset > path.stat().st_size:
                    raise PayloadLimitError("offset is behind the end")
                file.seek(request.offset)
                while data := file.read(CHUNK_BYTES):
                    yield pb.Chunk(data=data)

    def Push(  # noqa: N802
        self, request_iterator: Iterator[pb.PushChunk], context: grpc.ServicerContext
    ) -> pb.ModelStat:
        with _typed(context):
            first = next(request_iterator, None)
            if first is None or first.WhichOneof("content") != "header":
                raise PayloadLimitError("push: wanted a header first")
            push = self._announced(first.header, context)
            with self._uploads.receive(push, first.header.offset) as upload:
                for message in request_iterator:
                    if message.WhichOneof("content") != "data":
                        raise PayloadLimitError("push: wanted data after the header")
                    upload.append(message.data)
                if upload.num_bytes < push.num_bytes:
                    raise PayloadTruncatedError(
                        f"push: got {upload.num_bytes} of {push.num_bytes} bytes"
                    )
            with self._uploads.finishing(push) as path, self._finishing:
                # Another stream may have finished it while this one waited.
                if path.exists() or push.model_id not in self._store:
                    self._finish(push, path)
                    if self._stored is not None:
                        self._stored.add(push.device, push.model_id, push.num_bytes)
            return self._stat(push.model_id)

    def Received(  # noqa: N802
        self, request: pb.PushHeader, context: grpc.ServicerContext
    ) -> pb.PushState:
        with _typed(context):
            push = self._announced(request, context)
            is_stored = push.model_id in self._store
            return pb.PushState(
                received_bytes=self._uploads.received_bytes(push),
                stored=self._stat(push.model_id) if is_stored else None,
            )

    def Stat(  # noqa: N802
        self, request: pb.StatRequest, context: grpc.ServicerContext
    ) -> pb.ModelStat:
        with _typed(context):
            return self._stat(request.model_id)

    def Attend(  # noqa: N802
        self, request_iterator: Iterator[pb.AttendChunk], context: grpc.ServicerContext
    ) -> pb.Order:
        with _typed(context):
            first = next(request_iterator, None)
            if self._mailbox is None or first is None or first.WhichOneof("content") != "header":
                raise PayloadLimitError("attend: wanted a deployment's depot, and a header first")
            header, answer = first.header, bytearray()
            # Without TLS nobody has a name, and a device is who it says it is.
            device = device_of(context) if self._open_order else header.domain
            call = self._attending[device] = object()
            for message in request_iterator:
                answer += message.data
                if len(answer) > min(header.answer_bytes, MAX_ANSWER_BYTES):
                    raise PayloadLimitError(f"attend: {len(answer)} bytes are over the limit")
            if len(answer) < header.answer_bytes:
                raise PayloadTruncatedError(
                    f"attend: got {len(answer)} of {header.answer_bytes} bytes"
                )
            if header.answered:
                self._mailbox.deliver(device, header.session, header.answered, bytes(answer))

            def goes_on() -> bool:
                return context.is_active() and self._attending.get(device) is call

            return self._mailbox.wait(device, header.session, self._hold_s, goes_on)

    def _announced(self, header: pb.PushHeader, context: grpc.ServicerContext) -> PendingPush:
        """The push that a header announces, checked against the limits."""
        push = PendingPush(
            device=device_of(context),
            model_id=header.model_id,
            exact_bytes=header.exact_bytes,
            base_bytes=header.base_bytes,
            residual_bytes=header.residual_bytes,
        )
        if not is_model_id(push.model_id):
            raise PayloadLimitError("push: wanted a model id")
        self._order(push.device)
        forms = [n > 0 for n in (header.exact_bytes, header.base_bytes, header.residual_bytes)]
        one_form = forms in ([True, False, False], [False, True, True])
        if not one_form or push.num_bytes > self._max_payload_bytes:
            raise PayloadLimitError(
                f"push: announces {header.exact_bytes}, {header.base_bytes} and "
                f"{header.residual_bytes} bytes; wanted one form, limit {self._max_payload_bytes}"
            )
        if self._stored is not None:
            self._stored.check(push.device, push.model_id, push.num_bytes)
        return push

    def _order(self, device: str) -> str | None:
        """For which order a device pushes; raises DeviceRefusedError where it has none."""
        order = None if self._open_order is None else self._open_order(device)
        if order is None and self._open_order is not None:
            raise DeviceRefusedError(
                f"push of {device}: got no request to register a model, wanted one"
            )
        return order

    def _finish(self, push: PendingPush, path: Path) -> None:
        """Check a whole push and put it into the store; what is refused is removed."""
        try:
            with (
                working_file(self._uploads.folder, WORK_PREFIX) as (joined, sink),
                path.open("rb") as pushed,
            ):
                shapes = self._claimed_shapes(push, pushed)
                if push.exact_bytes:
                    facts, payload = check_payload(pushed, push.exact_bytes, shapes), path
                else:
                    # Both parts lie in one file: the base is read to its end before the residual.
                    base = PartFile(file=pushed, num_bytes=push.base_bytes)
                    residual = PartFile(file=pushed, num_bytes=push.residual_bytes)
                    folder = work_folder(self._uploads.folder, shapes)
                    facts, payload = join_files(base, residual, sink, folder, shapes), joined
                if facts.model_id != push.model_id:
                    raise PayloadChangedError(
                        f"push: hashes to {facts.model_id}, wanted {push.model_id}"
                    )
                order = self._order(push.device)
                self._store.keep_file(facts, payload, self._uploads.folder, order)
        except (PayloadError, ArchitectureError):
            self._uploads.drop(push)
            raise
        self._uploads.drop(push)

    def _claimed_shapes(self, push: PendingPush, pushed: BinaryIO) -> Shapes:
        """The shapes of what a push claims to be; small parts must not claim a large model."""
        if push.exact_bytes:
            architecture, claimed, _ = read_header(pushed, push.exact_bytes)
        else:
            base = PartFile(file=pushed, num_bytes=push.base_bytes)
            architecture, claimed = read_base_header(base)
        shapes = self._store.shapes_of(architecture)
        check_shapes(architecture, claimed, shapes)
        if (num_bytes := payload_bytes_of(architecture, claimed)) > self._max_payload_bytes:
            raise PayloadLimitError(f"push: a payload of {num_bytes} bytes is over the limit")
        pushed.seek(0)
        return shapes

    def _stat(self, name: str) -> pb.ModelStat:
        sizes = {part: self._store.num_bytes(name, part) for part in PART_CODES}
        return pb.ModelStat(
            model_id=name,
            payload_bytes=sizes["exact"],
            base_bytes=sizes["base"],
            residual_bytes=sizes["residual"],
        )
