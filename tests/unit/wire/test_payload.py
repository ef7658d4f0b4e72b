"""One model, one payload; nothing else is a payload."""

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core import payload as payload_module
from graft.core.payload import decode_payload, encode_payload, model_id
from graft.core.records import FloatArray
from graft.errors import PayloadChangedError, PayloadError, PayloadLimitError, PayloadTruncatedError


def small_model() -> dict[str, FloatArray]:
    rng = np.random.default_rng(5)
    return {
        "head.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "head.bias": rng.normal(size=3).astype(np.float32),
        "temperature": np.array(1.5, np.float32),
    }


def shapes_of(parameters: dict[str, FloatArray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in parameters.items()}


def with_header(change: Any, payload: bytes | None = None) -> bytes:
    """A payload whose JSON header went through ``change``, its length word kept true."""
    payload = payload or encode_payload("mlp", small_model())
    length = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + length])
    text = change(header)
    if not isinstance(text, bytes):
        text = json.dumps(text or header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + payload[8 + length :]


def test_a_payload_gives_its_parameters_back_to_the_bit() -> None:
    model = small_model()
    architecture, decoded = decode_payload(
        encode_payload("mlp", model), shapes_of(model), model_id(encode_payload("mlp", model))
    )
    assert architecture == "mlp"
    assert {n: a.tobytes() for n, a in decoded.items()} == {
        n: a.tobytes() for n, a in model.items()
    }


def test_the_order_of_tensors_and_their_memory_layout_do_not_change_the_id() -> None:
    model = small_model()
    turned = {name: np.array(model[name], order="F") for name in reversed(model)}
    assert encode_payload("mlp", turned) == encode_payload("mlp", model)


def test_any_safetensors_reader_reads_a_payload() -> None:
    model = small_model()
    loaded = safetensors.numpy.load(encode_payload("mlp", model))
    assert loaded.keys() == model.keys()
    for name, array in model.items():
        np.testing.assert_array_equal(loaded[name], array)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_every_single_bit_flip_is_refused(data: st.DataObject) -> None:
    payload = encode_payload("mlp", small_model())
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    flipped = bytearray(payload)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PayloadError):
        decode_payload(bytes(flipped), None, model_id(payload))


def test_every_truncation_is_refused() -> None:
    payload = encode_payload("mlp", small_model())
    for length in range(len(payload)):
        with pytest.raises(PayloadTruncatedError):
            decode_payload(payload[:length], None, None)


def test_a_byte_too_many_is_refused() -> None:
    with pytest.raises(PayloadChangedError):
        decode_payload(encode_payload("mlp", small_model()) + b"\0", None, None)


def test_another_model_than_asked_for_is_refused() -> None:
    with pytest.raises(PayloadChangedError, match="hashes to"):
        decode_payload(encode_payload("mlp", small_model()), None, "0" * 64)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2e9])
def test_a_value_no_training_gives_is_refused_by_name(bad: float) -> None:
    model = small_model()
    payload = bytearray(encode_payload("mlp", model))
    payload[-4:] = np.float32(bad).tobytes()  # the last tensor by name
    with pytest.raises(PayloadLimitError, match="temperature"):
        decode_payload(bytes(payload), None, None)
    model["head.bias"][1] = bad
    with pytest.raises(PayloadLimitError, match=r"head\.bias"):
        encode_payload("mlp", model)


@pytest.mark.parametrize(
    "wanted",
    [
        {"head.weight": (4, 3), "head.bias": (3,), "temperature": ()},
        {"head.weight": (3, 4), "head.bias": (3,)},
        {"head.weight": (3, 4), "head.bias": (3,), "temperature": (), "more": (1,)},
    ],
)
def test_shapes_other_than_the_architecture_has_are_refused(
    wanted: dict[str, tuple[int, ...]],
) -> None:
    with pytest.raises(PayloadLimitError, match="wanted"):
        decode_payload(encode_payload("mlp", small_model()), wanted, None)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: dict(reversed(h.items())),
        lambda h: h["head.bias"].update(dtype="F16"),
        lambda h: h["head.weight"].update(dtype="I32"),
        lambda h: h["head.bias"].update(shape=[3.0]),
        lambda h: h["head.bias"].update(shape=[True, 3]),
        lambda h: h["head.bias"].update(shape=[-3]),
        lambda h: h["head.bias"].update(shape=[10**30]),
        lambda h: h["head.bias"].update(shape=[1] * 9),
        lambda h: h["head.bias"].update(shape=3),
        lambda h: h["head.bias"].update(data_offsets=[12, 24]),
        lambda h: h["head.bias"].update(extra=1),
        lambda h: h["__metadata__"].update(format="graft-0"),
        lambda h: h["__metadata__"].update(architecture=7),
        lambda h: h["__metadata__"].update(architecture=""),
        lambda h: h.pop("__metadata__") and None,
        lambda h: b"[" * 100_000,
        lambda h: b"{}",
        lambda h: b"null",
        lambda h: b"\xff\xfe",
        lambda h: b'{"__metadata__":' + b"9" * 5_000 + b"}",
    ],
)
def test_a_header_out_of_form_is_refused(change: Any) -> None:
    with pytest.raises(PayloadError):
        decode_payload(with_header(change), None, None)


def test_a_header_over_the_limit_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_module.json, "loads", lambda text: pytest.fail("parsed"))
    text = b" " * (payload_module.MAX_HEADER_BYTES + 1)
    with pytest.raises(PayloadLimitError, match="header"):
        decode_payload(len(text).to_bytes(8, "little") + text, None, None)


def test_more_tensors_than_the_limit_are_refused() -> None:
    many = {f"t{i}": np.zeros(1, np.float32) for i in range(payload_module.MAX_TENSORS + 1)}
    with pytest.raises(PayloadLimitError, match="tensors"):
        encode_payload("mlp", many)


def test_only_float32_is_encoded() -> None:
    with pytest.raises(PayloadLimitError, match="float64"):
        encode_payload("mlp", {"a": np.zeros(2)})  # type: ignore[dict-item]
