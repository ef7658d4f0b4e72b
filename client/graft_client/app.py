"""The ClientApp: Flower's messages in, one domain's answers out."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from graft.core.exchange import Failure, Request, Response, failure_of
from graft.errors import GraftError, MessageError
from graft.rounds import Device, handle_request
from graft.wire.messages.codec import (
    MESSAGE_BODY,
    MESSAGE_RECORD,
    decode_request,
    encode_join,
    encode_response,
)
from graft_client.device_factory import domain_of_node, node_device

DomainOf = Callable[[Context], str]
OpenDevice = Callable[[Context, Request], AbstractContextManager[Device]]
# From a request's record, as it came, to the record of its reply.
Handler = Callable[[Context, ConfigRecord], dict[str, bytes]]


def attach(app: ClientApp, domain_of: DomainOf, handle: Handler) -> None:
    """Let ``app`` answer for one domain a node; ``handle`` answers each request's record.

    A MessageError of ``handle`` is answered with a failure of the node's domain.
    """

    def join(message: Message, context: Context) -> Message:
        return _reply(message, {MESSAGE_BODY: encode_join(domain_of(context))})

    def answer(message: Message, context: Context) -> Message:
        record = message.content.config_records.get(MESSAGE_RECORD, ConfigRecord())
        try:
            return _reply(message, handle(context, record))
        except MessageError as error:
            return _reply(message, refusal(domain_of(context), error))

    app.query("join")(join)
    app.query("profile")(answer)
    app.query("probe")(answer)
    app.train("learn")(answer)
    app.train("grow")(answer)


def handle_with(open_device: OpenDevice) -> Handler:
    """A handler of requests on the devices that ``open_device`` opens."""

    def handle(context: Context, record: ConfigRecord) -> dict[str, bytes]:
        request = decode_request(request_bytes(record))
        return {MESSAGE_BODY: encode_response(respond_with(context, request, open_device))}

    return handle


def respond_with(context: Context, request: Request, open_device: OpenDevice) -> Response:
    """The answer to a request; any error on the device becomes a failure with its name."""
    try:
        with open_device(context, request) as device:
            return handle_request(request, device)
    except Exception as error:
        return failure_of(request, error)


def request_bytes(record: ConfigRecord) -> bytes:
    """The encoded request in a message's record; raises MessageError where there is none."""
    body = record.get(MESSAGE_BODY)
    if not isinstance(body, bytes):
        raise MessageError(f"message: got {type(body).__name__} as its body, wanted bytes")
    return body


def refusal(domain_id: str, error: GraftError) -> dict[str, bytes]:
    """The reply to a message that is no request for this domain; the server knows what it sent."""
    failure = Failure(
        domain_id=domain_id,
        round_index=0,
        method="",
        error=type(error).__name__,
        message=str(error),
    )
    return {MESSAGE_BODY: encode_response(failure)}


def _reply(message: Message, parts: dict[str, bytes]) -> Message:
    content = RecordDict({MESSAGE_RECORD: ConfigRecord(dict(parts))})
    return Message(content, reply_to=message)


app = ClientApp()
attach(app, domain_of_node, handle_with(node_device))
