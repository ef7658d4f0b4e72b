"""The ClientApp: Flower's messages in, one domain's answers out."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from graft.core.records import Answer, Order, failure_of
from graft.rounds import Device, answer_order
from graft.wire.messages.codec import (
    MESSAGE_BODY,
    MESSAGE_RECORD,
    decode_order,
    encode_answer,
    encode_join,
)
from graft_client.device_factory import domain_of_node, node_device

DomainOf = Callable[[Context], str]
OpenDevice = Callable[[Context, Order], AbstractContextManager[Device]]
# The record of an order as it came, to the record of its reply.
Carry = Callable[[Context, ConfigRecord], dict[str, bytes]]


def attach(app: ClientApp, domain_of: DomainOf, carry: Carry) -> None:
    """Let ``app`` answer for one domain a node, each order carried out by ``carry``."""

    def join(message: Message, context: Context) -> Message:
        return _reply(message, {MESSAGE_BODY: encode_join(domain_of(context))})

    def carry_out(message: Message, context: Context) -> Message:
        return _reply(message, carry(context, message.content.config_records[MESSAGE_RECORD]))

    app.query("join")(join)
    app.query("profile")(carry_out)
    app.query("probe")(carry_out)
    app.train("learn")(carry_out)


def carry_on(open_device: OpenDevice) -> Carry:
    """Carry orders out on the devices that ``open_device`` brings: data, transport and clock."""

    def carry(context: Context, record: ConfigRecord) -> dict[str, bytes]:
        order = decode_order(order_bytes(record))
        return {MESSAGE_BODY: encode_answer(answer_with(context, order, open_device))}

    return carry


def answer_with(context: Context, order: Order, open_device: OpenDevice) -> Answer:
    """The answer to an order; whatever goes wrong on a device has a name at the server."""
    try:
        with open_device(context, order) as device:
            return answer_order(order, device)
    except Exception as error:
        return failure_of(order, error)


def order_bytes(record: ConfigRecord) -> bytes:
    """The encoded order in a message's record."""
    body = record[MESSAGE_BODY]
    assert isinstance(body, bytes)
    return body


def _reply(message: Message, parts: dict[str, bytes]) -> Message:
    content = RecordDict({MESSAGE_RECORD: ConfigRecord(dict(parts))})
    return Message(content, reply_to=message)


app = ClientApp()
attach(app, domain_of_node, carry_on(node_device))
