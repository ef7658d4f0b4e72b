"""Records to bytes and back, through one protobuf envelope; encoding is deterministic.

Bytes from the network are trusted only after ``checks`` accepted the whole record: decoding raises
MessageError and nothing else.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, EncodeError

from graft.core.records import (
    DomainProfile,
    Failure,
    ModelCard,
    ProbeRequest,
    ProfileRequest,
    Request,
    Response,
    Selection,
    TrainRequest,
)
from graft.errors import MessageError
from graft.wire.messages.checks import (
    MAX_TEXT_LENGTH,
    check_card,
    check_domain_id,
    check_request,
    check_response,
)
from graft.wire.messages.protobuf import (
    card_message,
    card_record,
    failure_record,
    profile_message,
    profile_record,
    report_message,
    report_record,
    selection_message,
    selection_record,
)
from graft.wire.stubs import messages_pb2 as pb

VERSION: Final = 1
# Where the bytes travel in a Flower message: one value of one record, which costs least.
MESSAGE_RECORD: Final = "graft"
MESSAGE_BODY: Final = "body"
# Parsing can cost some thirty times the bytes read, so the cap also bounds a decoder's memory.
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024

Decoded = TypeVar("Decoded")


def encode_request(request: Request) -> bytes:
    """The request's bytes; raises MessageError for a record that may not travel."""
    check_request(request)
    if isinstance(request, ProfileRequest):
        body = pb.ProfileRequest(domain_id=request.domain_id, round_index=request.round_index)
        return _serialise(pb.Envelope(profile_request=body))
    if isinstance(request, ProbeRequest):
        probe = pb.ProbeRequest(
            domain_id=request.domain_id,
            round_index=request.round_index,
            method=request.method,
            candidates=[card_message(card) for card in request.candidates],
            coarse_distances=request.coarse_distances,
        )
        return _serialise(pb.Envelope(probe_request=probe))
    learn = pb.TrainRequest(
        domain_id=request.domain_id,
        round_index=request.round_index,
        method=request.method,
        sources=[card_message(card) for card in request.sources],
        register=request.register,
        architecture_averages=[card_message(card) for card in request.architecture_averages],
    )
    return _serialise(pb.Envelope(train_request=learn))


def decode_request(data: bytes) -> Request:
    """The request in ``data``; raises MessageError for anything else."""
    request = _parse(data, _request_record)
    check_request(request)
    return request


def encode_response(response: Response) -> bytes:
    """The answer's bytes; raises MessageError for a record that may not travel.

    A failure's message is cut to ``MAX_TEXT_LENGTH`` characters, never refused for its length.
    """
    if isinstance(response, Failure):
        readable = response.message[:MAX_TEXT_LENGTH].encode("utf-8", "replace").decode("utf-8")
        failure = pb.Failure(
            domain_id=response.domain_id,
            round_index=response.round_index,
            method=response.method,
            error=response.error,
            message=readable,
        )
        check_response(failure_record(failure))
        return _serialise(pb.Envelope(failure=failure))
    check_response(response)
    if isinstance(response, DomainProfile):
        return _serialise(pb.Envelope(domain_profile=profile_message(response)))
    if isinstance(response, Selection):
        return _serialise(pb.Envelope(selection=selection_message(response)))
    return _serialise(pb.Envelope(train_result=report_message(response)))


def decode_response(data: bytes) -> Response:
    """The answer in ``data``; raises MessageError for anything else."""
    response = _parse(data, _response_record)
    check_response(response)
    return response


def encode_join(domain_id: str) -> bytes:
    """The bytes by which a node says which domain it speaks for."""
    check_domain_id(domain_id)
    return _serialise(pb.Envelope(join_reply=pb.JoinReply(domain_id=domain_id)))


def decode_join(data: bytes) -> str:
    """The domain id of a join reply; raises MessageError for anything else."""
    domain_id = _parse(data, _join_record)
    check_domain_id(domain_id)
    return domain_id


def encode_card(card: ModelCard) -> bytes:
    """One card's bytes, as the catalogue keeps it; raises MessageError for an impossible one."""
    check_card(card)
    data: bytes = card_message(card).SerializeToString(deterministic=True)
    return data


def decode_card(data: bytes) -> ModelCard:
    """The card of ``encode_card``; raises MessageError for anything else."""
    try:
        card = card_record(pb.ModelCard.FromString(data))
    except DecodeError as error:
        raise MessageError(f"card: {error}") from error
    check_card(card)
    return card


def _serialise(envelope: pb.Envelope) -> bytes:
    envelope.version = VERSION
    try:
        data: bytes = envelope.SerializeToString(deterministic=True)
    except EncodeError as error:
        raise MessageError(f"message cannot be encoded: {error}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"message: {len(data)} bytes, limit {MAX_MESSAGE_BYTES}")
    return data


def _parse(data: bytes, read: Callable[[pb.Envelope], Decoded]) -> Decoded:
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"message: {len(data)} bytes, limit {MAX_MESSAGE_BYTES}")
    try:
        envelope = pb.Envelope.FromString(data)
    except DecodeError as error:
        raise MessageError(f"message of {len(data)} bytes cannot be parsed: {error}") from error
    if envelope.version != VERSION:
        raise MessageError(f"message version: got {envelope.version}, wanted {VERSION}")
    return read(envelope)


def _request_record(envelope: pb.Envelope) -> Request:
    kind = envelope.WhichOneof("body")
    if kind == "profile_request":
        asked = envelope.profile_request
        return ProfileRequest(domain_id=asked.domain_id, round_index=asked.round_index)
    if kind == "probe_request":
        probe = envelope.probe_request
        return ProbeRequest(
            domain_id=probe.domain_id,
            round_index=probe.round_index,
            method=probe.method,
            candidates=tuple(map(card_record, probe.candidates)),
            coarse_distances=tuple(probe.coarse_distances),
        )
    if kind == "train_request":
        learn = envelope.train_request
        return TrainRequest(
            domain_id=learn.domain_id,
            round_index=learn.round_index,
            method=learn.method,
            sources=tuple(map(card_record, learn.sources)),
            register=learn.register,
            architecture_averages=tuple(map(card_record, learn.architecture_averages)),
        )
    raise MessageError(f"message: got {kind}, wanted a request")


def _response_record(envelope: pb.Envelope) -> Response:
    kind = envelope.WhichOneof("body")
    if kind == "domain_profile":
        return profile_record(envelope.domain_profile)
    if kind == "selection":
        return selection_record(envelope.selection)
    if kind == "train_result":
        return report_record(envelope.train_result)
    if kind == "failure":
        return failure_record(envelope.failure)
    raise MessageError(f"message: got {kind}, wanted an answer")


def _join_record(envelope: pb.Envelope) -> str:
    kind = envelope.WhichOneof("body")
    if kind != "join_reply":
        raise MessageError(f"message: got {kind}, wanted a join reply")
    domain_id: str = envelope.join_reply.domain_id
    return domain_id
