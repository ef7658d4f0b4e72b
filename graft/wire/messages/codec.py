"""Records to bytes and back, through one protobuf envelope; encoding is deterministic.

Bytes from the network are believed only after ``checks`` accepted the whole record: whatever
is wrong with them, decoding raises MessageError and nothing else.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, EncodeError

from graft.core.records import (
    Answer,
    DomainProfile,
    Failure,
    LearnOrder,
    ModelCard,
    Order,
    ProbeOrder,
    ProfileOrder,
    Selection,
)
from graft.errors import MessageError
from graft.wire.messages.checks import (
    MAX_TEXT_LENGTH,
    check_answer,
    check_card,
    check_domain_id,
    check_order,
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


def encode_order(order: Order) -> bytes:
    """The order's bytes; raises MessageError for a record that may not travel."""
    check_order(order)
    if isinstance(order, ProfileOrder):
        body = pb.ProfileOrder(domain_id=order.domain_id, round_index=order.round_index)
        return _seal(pb.Envelope(profile_order=body))
    if isinstance(order, ProbeOrder):
        probe = pb.ProbeOrder(
            domain_id=order.domain_id,
            round_index=order.round_index,
            method=order.method,
            candidates=[card_message(card) for card in order.candidates],
            coarse_distances=order.coarse_distances,
        )
        return _seal(pb.Envelope(probe_order=probe))
    learn = pb.LearnOrder(
        domain_id=order.domain_id,
        round_index=order.round_index,
        method=order.method,
        sources=[card_message(card) for card in order.sources],
        register=order.register,
        groups=[card_message(card) for card in order.groups],
    )
    return _seal(pb.Envelope(learn_order=learn))


def decode_order(data: bytes) -> Order:
    """The order in ``data``; raises MessageError for anything else."""
    order = _open(data, _order_record)
    check_order(order)
    return order


def encode_answer(answer: Answer) -> bytes:
    """The answer's bytes; raises MessageError for a record that may not travel.

    A failure's message is cut to ``MAX_TEXT_LENGTH`` characters, never refused for its length.
    """
    if isinstance(answer, Failure):
        readable = answer.message[:MAX_TEXT_LENGTH].encode("utf-8", "replace").decode("utf-8")
        failure = pb.Failure(
            domain_id=answer.domain_id,
            round_index=answer.round_index,
            method=answer.method,
            error=answer.error,
            message=readable,
        )
        check_answer(failure_record(failure))
        return _seal(pb.Envelope(failure=failure))
    check_answer(answer)
    if isinstance(answer, DomainProfile):
        return _seal(pb.Envelope(domain_profile=profile_message(answer)))
    if isinstance(answer, Selection):
        return _seal(pb.Envelope(selection=selection_message(answer)))
    return _seal(pb.Envelope(learn_report=report_message(answer)))


def decode_answer(data: bytes) -> Answer:
    """The answer in ``data``; raises MessageError for anything else."""
    answer = _open(data, _answer_record)
    check_answer(answer)
    return answer


def encode_join(domain_id: str) -> bytes:
    """The bytes by which a node says which domain it speaks for."""
    check_domain_id(domain_id)
    return _seal(pb.Envelope(join_reply=pb.JoinReply(domain_id=domain_id)))


def decode_join(data: bytes) -> str:
    """The domain id of a join reply; raises MessageError for anything else."""
    domain_id = _open(data, _join_record)
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


def _seal(envelope: pb.Envelope) -> bytes:
    envelope.version = VERSION
    try:
        data: bytes = envelope.SerializeToString(deterministic=True)
    except EncodeError as error:
        raise MessageError(f"message cannot be encoded: {error}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"message: {len(data)} bytes, limit {MAX_MESSAGE_BYTES}")
    return data


def _open(data: bytes, read: Callable[[pb.Envelope], Decoded]) -> Decoded:
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"message: {len(data)} bytes, limit {MAX_MESSAGE_BYTES}")
    try:
        envelope = pb.Envelope.FromString(data)
    except DecodeError as error:
        raise MessageError(f"message of {len(data)} bytes cannot be parsed: {error}") from error
    if envelope.version != VERSION:
        raise MessageError(f"message version: got {envelope.version}, wanted {VERSION}")
    return read(envelope)


def _order_record(envelope: pb.Envelope) -> Order:
    kind = envelope.WhichOneof("body")
    if kind == "profile_order":
        asked = envelope.profile_order
        return ProfileOrder(domain_id=asked.domain_id, round_index=asked.round_index)
    if kind == "probe_order":
        probe = envelope.probe_order
        return ProbeOrder(
            domain_id=probe.domain_id,
            round_index=probe.round_index,
            method=probe.method,
            candidates=tuple(map(card_record, probe.candidates)),
            coarse_distances=tuple(probe.coarse_distances),
        )
    if kind == "learn_order":
        learn = envelope.learn_order
        return LearnOrder(
            domain_id=learn.domain_id,
            round_index=learn.round_index,
            method=learn.method,
            sources=tuple(map(card_record, learn.sources)),
            register=learn.register,
            groups=tuple(map(card_record, learn.groups)),
        )
    raise MessageError(f"message: got {kind}, wanted an order")


def _answer_record(envelope: pb.Envelope) -> Answer:
    kind = envelope.WhichOneof("body")
    if kind == "domain_profile":
        return profile_record(envelope.domain_profile)
    if kind == "selection":
        return selection_record(envelope.selection)
    if kind == "learn_report":
        return report_record(envelope.learn_report)
    if kind == "failure":
        return failure_record(envelope.failure)
    raise MessageError(f"message: got {kind}, wanted an answer")


def _join_record(envelope: pb.Envelope) -> str:
    kind = envelope.WhichOneof("body")
    if kind != "join_reply":
        raise MessageError(f"message: got {kind}, wanted a join reply")
    domain_id: str = envelope.join_reply.domain_id
    return domain_id
