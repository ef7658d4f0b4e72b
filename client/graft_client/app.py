"""The ClientApp: Flower's messages in, one domain's answers out."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from graft.core.records import Request, Response, failure_of
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
# The record of a request as it came, to the record of its reply.
Carry = Callable[[Context, ConfigRecord], dict[str, bytes]]


def attach(app: ClientApp, domain_of: DomainOf, carry: Carry) -> None:
    """Let ``app`` answer for one domain a node, each request carried out by ``carry``."""

    def join(message: Message, context: Context) -> Message:
        return _reply(message, {MESSAGE_BODY: encode_join(domain_of(context))})

    def carry_out(message: Message, context: Context) -> Message:
        return _reply(message, carry(context, message.content.config_records[MESSAGE_RECORD]))

    app.query("join")(join)
    app.query("profile")(carry_out)
    app.query("probe")(carry_out)
    app.train("learn")(carry_out)


def carry_on(open_device: OpenDevice) -> Carry:
    """Carry requests out on the devices that ``open_device`` brings: data, transport and clock."""

    def carry(context: Context, record: ConfigRecord) -> dict[str, bytes]:
        request = decode_request(request_bytes(record))
        return {MESSAGE_BODY: encode_response(respond_with(context, request, open_device))}

    return carry


def respond_with(context: Context, request: Request, open_device: OpenDevice) -> Response:
    """The answer to a request; whatever goes wrong on a device has a name at the server."""
    try:
        with open_device(context, request) as device:
            return handle_request(request, device)
    except Exception as error:
        return failure_of(request, error)


def request_bytes(record: ConfigRecord) -> bytes:
    """The encoded order in a message's record."""
    body = record[MESSAGE_BODY]
    assert isinstance(body, bytes)
    return body


def _reply(message: Message, parts: dict[str, bytes]) -> Message:
    content = RecordDict({MESSAGE_RECORD: ConfigRecord(dict(parts))})
    return Message(content, reply_to=message)


app = ClientApp()
attach(app, domain_of_node, carry_on(node_device))
