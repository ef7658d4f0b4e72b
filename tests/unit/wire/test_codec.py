"""Records survive the wire unchanged, and nothing malformed survives it at all."""

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from record_strategies import cards, requests, responses

from graft.core.exchange import (
    Failure,
    FusionDiagnostics,
    ProbeRequest,
    ProfileRequest,
    TrainRequest,
    TrainResult,
)
from graft.core.ranges import field_ranges
from graft.core.records import DomainProfile, ModelCard
from graft.errors import MessageError
from graft.wire.messages.codec import (
    MAX_MESSAGE_BYTES,
    _serialise,
    decode_card,
    decode_join,
    decode_request,
    decode_response,
    encode_card,
    encode_join,
    encode_request,
    encode_response,
)
from graft.wire.messages.protobuf import message_of
from graft.wire.stubs import messages_pb2 as pb

QUICK = settings(max_examples=40, deadline=None)


def assert_same(left: Any, right: Any) -> None:
    """Equality through records, tuples and arrays; arrays to the bit."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes()
    elif isinstance(left, tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif hasattr(left, "__dataclass_fields__"):
        for field in fields(left):
            assert_same(getattr(left, field.name), getattr(right, field.name))
    else:
        assert left == right


@QUICK
@given(requests)
def test_an_order_comes_back_as_it_went(request: Any) -> None:
    assert_same(decode_request(encode_request(request)), request)


@QUICK
@given(responses)
def test_an_answer_comes_back_as_it_went(response: Any) -> None:
    assert_same(decode_response(encode_response(response)), response)


@QUICK
@given(responses)
def test_encoding_a_decoded_answer_gives_the_same_bytes(response: Any) -> None:
    data = encode_response(response)
    assert encode_response(decode_response(data)) == data


@QUICK
@given(cards())
def test_a_card_comes_back_as_it_went(card: ModelCard) -> None:
    assert_same(decode_card(encode_card(card)), card)


def test_a_kept_card_is_held_to_the_same_rules() -> None:
    with pytest.raises(MessageError, match="model id"):
        encode_card(replace(a_card(), model_id="AB" * 32))
    mask = pb.BitSet(size=1, data=b"\x01")
    with pytest.raises(MessageError, match="domain id"):
        decode_card(pb.ModelCard(model_id=bytes(32), class_mask=mask).SerializeToString())


def test_metrics_encode_alike_in_any_order() -> None:
    report = a_report()
    turned = replace(report, metrics=dict(reversed(report.metrics.items())))
    assert encode_response(turned) == encode_response(report)


def test_a_join_names_its_domain() -> None:
    assert decode_join(encode_join("ward-7@clinic")) == "ward-7@clinic"


@pytest.mark.parametrize("decode", [decode_request, decode_response, decode_join])
@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 40, b"\x08\x01", b"\x08\x02"])
def test_bytes_that_hold_no_message_are_refused(decode: Any, data: bytes) -> None:
    with pytest.raises(MessageError):
        decode(data)


def test_one_kind_is_not_taken_for_another() -> None:
    with pytest.raises(MessageError, match="wanted an answer"):
        decode_response(encode_request(ProfileRequest(domain_id="d", round_index=0)))
    with pytest.raises(MessageError, match="wanted a request"):
        decode_request(encode_join("d"))


def test_a_message_over_the_limit_is_not_parsed() -> None:
    with pytest.raises(MessageError, match="limit"):
        decode_request(bytes(MAX_MESSAGE_BYTES + 1))


def test_a_message_over_the_limit_is_not_encoded() -> None:
    statistics_D = np.zeros(MAX_MESSAGE_BYTES // 4, np.float32)  # full by itself, before any tag
    with pytest.raises(MessageError, match="limit"):
        encode_response(replace(a_profile(), statistics_D=statistics_D))


@pytest.mark.parametrize("domain_id", ["", "a b", "../etc", "x" * 129, "ä", "d\n"])
def test_a_domain_id_outside_its_alphabet_is_refused(domain_id: str) -> None:
    with pytest.raises(MessageError):
        encode_request(ProfileRequest(domain_id=domain_id, round_index=0))
    envelope = pb.Envelope(version=1, profile_request=pb.ProfileRequest(domain_id=domain_id))
    with pytest.raises(MessageError):
        decode_request(envelope.SerializeToString())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_floats_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(MessageError):
        encode_response(replace(a_report(), metrics={"accuracy": bad}))
    with pytest.raises(MessageError):
        encode_response(replace(a_report(), compute_s=bad))
    with pytest.raises(MessageError):
        encode_response(replace(a_profile(), statistics_D=np.array([bad], np.float32)))
    selection = pb.Selection(
        domain_id="d", candidates=[pb.Candidate(model_id=bytes(32), coarse_distance=bad)]
    )
    with pytest.raises(MessageError):
        decode_response(pb.Envelope(version=1, selection=selection).SerializeToString())


def spoiled_answer(response: Any) -> bytes:
    """The bytes of an answer that this side would not send."""
    return _serialise(message_of(response))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accuracy", 98765.0), ("num_test", 1e300), ("peak_memory_bytes", 2**64 - 1),
        ("compute_s", 1e308),
    ],
)  # fmt: skip
def test_numbers_that_broke_tables_and_reports_are_refused(name: str, value: float) -> None:
    report = a_report()
    change = {name: value}
    if not hasattr(report, name):
        change = {"metrics": {**report.metrics, name: value}}
    body = spoiled_answer(replace(report, **change))
    with pytest.raises(MessageError, match=f"{name}: got .*, wanted"):
        decode_response(body)


@settings(max_examples=60, deadline=None)
@given(responses, st.integers(0, 100), st.booleans())
def test_no_decoder_lets_a_number_of_the_table_pass_its_range(
    response: Any, chosen: int, above: bool
) -> None:
    of_it = field_ranges(type(response))
    fits = [(n, r) for n, _, r in of_it if isinstance(getattr(response, n), int | float)]
    assume(fits)
    name, allowed = fits[chosen % len(fits)]
    kind = type(getattr(response, name))
    value = kind(2 * allowed.high + 1) if above else kind(allowed.low - 1)
    try:
        body = spoiled_answer(replace(response, **{name: value}))
    except ValueError:  # the message's own type has no such number
        return
    with pytest.raises(MessageError):
        decode_response(body)


@pytest.mark.parametrize(
    "change",
    [
        {"model_id": bytes(31)},
        {"model_id": b""},
        {"parents": [bytes(33)]},
        {"domain_id": ""},
        {"architecture": "a\nb"},
        {"class_mask": pb.BitSet(size=3, data=b"\xff")},
        {"class_mask": pb.BitSet(size=9, data=b"\x01")},
        {"class_mask": pb.BitSet(size=2**32 - 1, data=b"\x01")},
        {"class_mask": pb.BitSet()},
        {"centroids": pb.FloatMatrix(rows=3, columns=1, data=bytes(11))},
        {"centroids": pb.FloatMatrix(rows=2, columns=2, data=bytes(16))},
        {"centroids": pb.FloatMatrix(rows=2**31, columns=2**31, data=b"")},
        {"centroids": pb.FloatMatrix(rows=3, columns=1, data=b"\x00\x00\xc0\x7f" * 3)},
        {"centroids": pb.FloatMatrix()},
        {"signature": bytes(1025)},
        {"profile": pb.DomainProfile(domain_id="d", statistics=bytes(3))},
        {"profile": pb.DomainProfile(domain_id="d", class_counts=pb.Counts())},
        {"profile": pb.DomainProfile(domain_id="d", class_counts=pb.Counts(values=[2**63]))},
    ],
)
def test_a_card_with_one_impossible_field_is_refused(change: dict[str, Any]) -> None:
    whole: dict[str, Any] = {
        "model_id": bytes(32),
        "domain_id": "d",
        "architecture": "cnn",
        "class_mask": pb.BitSet(size=3, data=b"\x07"),
    }
    learn = pb.TrainRequest(domain_id="d", sources=[pb.ModelCard(**whole)])
    decode_request(pb.Envelope(version=1, train_request=learn).SerializeToString())
    learn = pb.TrainRequest(domain_id="d", sources=[pb.ModelCard(**{**whole, **change})])
    with pytest.raises(MessageError):
        decode_request(pb.Envelope(version=1, train_request=learn).SerializeToString())


def test_every_candidate_has_its_distance() -> None:
    request = ProbeRequest(
        domain_id="d", round_index=0, method="hat", candidates=(a_card(),), coarse_distances=()
    )
    with pytest.raises(MessageError, match="wanted 1"):
        encode_request(request)


def test_a_failure_is_reported_however_long_its_message() -> None:
    failure = Failure(
        domain_id="d", round_index=0, method="", error="OSError", message="\udcff" + "x" * 99_999
    )
    response = decode_response(encode_response(failure))
    assert isinstance(response, Failure)
    assert response.message == "?" + "x" * 16_383


def test_a_card_for_fusion_costs_at_most_90_bytes() -> None:
    # 34 id, 8 domain id, 6 architecture, 3 x 4 lengths, 6 mask, 2 round, 2 nesting,
    # 5 for the order itself: about 75, nothing a field that is not there.
    request = TrainRequest(
        domain_id="d", round_index=1, method="", sources=(a_card().for_fusion(),), register=False
    )
    assert len(encode_request(request)) <= 90


def a_profile() -> DomainProfile:
    return DomainProfile(
        domain_id="d",
        task="gestures",
        num_samples=7,
        statistics_D=np.arange(3, dtype=np.float32),
        class_counts_C=np.array([3, 4]),
    )


def a_card() -> ModelCard:
    return ModelCard(
        model_id="ab" * 32,
        domain_id="site-1",
        architecture="cnn1",
        payload_bytes=80_232,
        base_bytes=19_032,
        residual_bytes=50_886,
        class_mask_C=np.ones(12, np.bool_),
        round_index=1,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"mixture_SQ": np.zeros((2, 6), np.float32)},
        {"mixture_SQ": np.zeros((1, 5), np.float32)},
        {"mixture_SQ": np.full((1, 6), 1.5, np.float32)},
        {"mixture_SQ": np.full((1, 6), -0.5, np.float32)},
        {"mixture_SQ": np.full((1, 6), np.nan, np.float32)},
        {"dictionary_E4": np.zeros((33, 4), np.float32)},
        {"dictionary_E4": np.zeros((2, 3), np.float32)},
        {"dictionary_E4": np.array([[-1, 0, 0, 0]], np.float32)},
        {"dictionary_E4": np.array([[7, 0, 2, 0]], np.float32)},
    ],
)
def test_a_trace_that_no_fusion_leaves_is_refused(change: dict[str, Any]) -> None:
    diagnostics = FusionDiagnostics(
        mixture_SQ=np.full((1, 6), 0.5, np.float32),
        dictionary_E4=np.array([[7, 0, 1, 0]], np.float32),
    )
    encode_response(replace(a_report(), diagnostics=diagnostics))
    with pytest.raises(MessageError):
        encode_response(replace(a_report(), diagnostics=replace(diagnostics, **change)))
    report = message_of(replace(a_report(), diagnostics=replace(diagnostics, **change)))
    with pytest.raises(MessageError):
        decode_response(pb.Envelope(version=1, train_result=report).SerializeToString())


def test_a_report_is_as_long_whatever_a_trace_says() -> None:
    lengths = {
        len(
            encode_response(
                replace(a_report(), diagnostics=FusionDiagnostics(mixture_SQ=spread_SQ))
            )
        )
        for spread_SQ in (np.zeros((1, 6), np.float32), np.full((1, 6), 1 / 3, np.float32))
    }
    assert len(lengths) == 1


def a_report() -> TrainResult:
    return TrainResult(
        domain_id="d",
        round_index=1,
        method="hat",
        architecture="cnn1",
        device_class="board",
        source_domains=("e",),
        metrics={"accuracy": 0.5, "macro_f1": 0.25, "num_test": 8.0},
        compute_s=1.5,
        peak_memory_bytes=1_000,
        card=a_card(),
    )
