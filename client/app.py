"""The ClientApp: Flower's messages in, one domain's answers out."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.host import domain_of_node, node_device
from graft.rounds import Device, answer_order
from graft.values import Order, failure_of
from graft.wire.codec import MESSAGE_BODY, MESSAGE_RECORD, decode_order, encode_answer, encode_join

DomainOf = Callable[[Context], str]
OpenDevice = Callable[[Context, Order], AbstractContextManager[Device]]


def attach(app: ClientApp, domain_of: DomainOf, open_device: OpenDevice) -> None:
    """Let ``app`` answer for one domain a node.

    ``open_device`` brings the data, the transport and the clock: the simulator's, or a real
    device's.
    """

    def join(message: Message, context: Context) -> Message:
        return _reply(message, encode_join(domain_of(context)))

    def carry_out(message: Message, context: Context) -> Message:
        order = decode_order(_body(message))
        try:
            with open_device(context, order) as device:
                answer = answer_order(order, device)
        except Exception as error:  # whatever goes wrong on a device has a name at the server
            answer = failure_of(order, error)
        return _reply(message, encode_answer(answer))

    app.query("join")(join)
    app.query("profile")(carry_out)
    app.query("probe")(carry_out)
    app.train("learn")(carry_out)


def _body(message: Message) -> bytes:
    body = message.content.config_records[MESSAGE_RECORD][MESSAGE_BODY]
    assert isinstance(body, bytes)
    return body


def _reply(message: Message, body: bytes) -> Message:
    return Message(
        RecordDict({MESSAGE_RECORD: ConfigRecord({MESSAGE_BODY: body})}), reply_to=message
    )


app = ClientApp()
attach(app, domain_of_node, node_device)
