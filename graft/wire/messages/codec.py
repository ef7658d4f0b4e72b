"""Records to bytes and back, through one protobuf envelope; encoding is deterministic.

Bytes from the network are trusted only after ``checks`` accepted the whole record: decoding raises
MessageError and nothing else.
"""

from dataclasses import replace
from typing import Any, Final, get_args

from google.protobuf.message import DecodeError, EncodeError

from graft.core.exchange import Failure, Request, Response
from graft.core.records import ModelCard
from graft.errors import MessageError
from graft.wire.messages.checks import MAX_TEXT_LENGTH, check_domain_id, check_record
from graft.wire.messages.protobuf import message_of, record_of
from graft.wire.stubs import messages_pb2 as pb

VERSION: Final = 1
# Where the bytes travel in a Flower message: one value of one record, which costs least.
MESSAGE_RECORD: Final = "graft"
MESSAGE_BODY: Final = "body"
MESSAGE_SESSION: Final = "session"  # instead of a body: the session that a device is to attend
# Parsing can cost some thirty times the bytes read, so the cap also bounds a decoder's memory.
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_BODIES: Final = {
    field.message_type.name: field.name
    for field in pb.Envelope.DESCRIPTOR.oneofs_by_name["body"].fields
}


def encode_request(request: Request) -> bytes:
    """The request's bytes; raises MessageError for a record that may not travel."""
    check_record(request)
    return _serialise(message_of(request))


def decode_request(data: bytes) -> Request:
    """The request in ``data``; raises MessageError for anything else."""
    request: Request = record_of(_parse(data, "a request", get_args(Request)))
    check_record(request)
    return request


def encode_response(response: Response) -> bytes:
    """The answer's bytes; raises MessageError for a record that may not travel.

    A failure's message is cut to ``MAX_TEXT_LENGTH`` characters, never refused for its length.
    """
    if isinstance(response, Failure):
        readable = response.message[:MAX_TEXT_LENGTH].encode("utf-8", "replace").decode("utf-8")
        response = replace(response, message=readable)
    check_record(response)
    return _serialise(message_of(response))


def decode_response(data: bytes) -> Response:
    """The answer in ``data``; raises MessageError for anything else."""
    response: Response = record_of(_parse(data, "an answer", get_args(Response)))
    check_record(response)
    return response


def encode_join(domain_id: str) -> bytes:
    """The bytes by which a node says which domain it speaks for."""
    check_domain_id(domain_id)
    return _serialise(pb.JoinReply(domain_id=domain_id))


def decode_join(data: bytes) -> str:
    """The domain id of a join reply; raises MessageError for anything else."""
    domain_id: str = _parse(data, "a join reply", (pb.JoinReply,)).domain_id
    check_domain_id(domain_id)
    return domain_id


def encode_card(card: ModelCard) -> bytes:
    """One card's bytes, as the catalogue keeps it; raises MessageError for an impossible one."""
    check_record(card)
    data: bytes = message_of(card).SerializeToString(deterministic=True)
    return data


def decode_card(data: bytes) -> ModelCard:
    """The card of ``encode_card``; raises MessageError for anything else."""
    try:
        card: ModelCard = record_of(pb.ModelCard.FromString(data))
    except DecodeError as error:
        raise MessageError(f"card: {error}") from error
    check_record(card)
    return card


def _serialise(message: Any) -> bytes:
    try:
        envelope = pb.Envelope(version=VERSION, **{_BODIES[type(message).__name__]: message})
        data: bytes = envelope.SerializeToString(deterministic=True)
    except EncodeError as error:
        raise MessageError(f"message cannot be encoded: {error}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"message: {len(data)} bytes, limit {MAX_MESSAGE_BYTES}")
    return data


def _parse(data: bytes, what: str, wanted: tuple[type, ...]) -> Any:
    """The message in an envelope, of one of the ``wanted`` types' names."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"message: {len(data)} bytes, limit {MAX_MESSAGE_BYTES}")
    try:
        envelope = pb.Envelope.FromString(data)
    except DecodeError as error:
        raise MessageError(f"message of {len(data)} bytes cannot be parsed: {error}") from error
    if envelope.version != VERSION:
        raise MessageError(f"message version: got {envelope.version}, wanted {VERSION}")
    kind = envelope.WhichOneof("body")
    if kind not in {_BODIES[each.__name__] for each in wanted}:
        raise MessageError(f"message: got {kind}, wanted {what}")
    return getattr(envelope, kind)
