"""Tensors of other types than float32 travel bit for bit."""

from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from graft.core.payload import check_payload, decode_payload, encode_payload, model_id
from graft.core.records import BFLOAT16
from graft.core.tensor_types import shape_of
from graft.errors import PayloadError
from graft.wire.payload.parts import decode_base, join_parts, split_payload


def parameters(rows: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def brain(*shape: int) -> np.ndarray:
        bits = torch.from_numpy(floats(*shape)).bfloat16().view(torch.uint16).numpy()
        return bits.view(BFLOAT16)

    return {
        "a.half": floats(rows, 7).astype(np.float16),
        "a.half_bias": floats(rows).astype(np.float16),
        "b.brain": brain(rows, 9),
        "b.brain_bias": brain(5),
        "c.full": floats(rows, 3),
        "c.scale": floats(3),
        "d.positions": np.arange(11, dtype=np.int64),
        "d.order": np.arange(5, dtype=np.int32),
        "e.mask": np.array([True, False, True]),
        "e.bytes": np.arange(7, dtype=np.uint8),
        "e.short": np.arange(3, dtype=np.int16),
        "f.zeros": np.array([[-0.0, 0.0], [6e-8, -6e-8]], np.float16),
    }


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


def test_every_type_comes_back_bit_for_bit_by_payload_and_by_parts() -> None:
    tensors = parameters()
    payload = encode_payload("mine", tensors)
    architecture, decoded = decode_payload(payload, None, model_id(payload))
    assert architecture == "mine"
    assert decoded.keys() == tensors.keys()
    assert all(same(decoded[name], tensors[name]) for name in tensors)
    base, residual = split_payload(payload)
    assert join_parts(base, residual) == payload
    _, approximate = decode_base(base)
    for name, array in tensors.items():
        assert approximate[name].dtype == array.dtype
        if array.dtype.kind in "iub":
            assert same(approximate[name], array)
    half = approximate["a.half"].astype(np.float32) - tensors["a.half"].astype(np.float32)
    step = np.abs(tensors["a.half"].astype(np.float32)).max(axis=1, keepdims=True) / 127
    assert (np.abs(half) <= 0.51 * step + 1e-3).all()


def test_large_tensors_of_several_types_pass_block_by_block() -> None:
    tensors = parameters(rows=60_000)
    payload = encode_payload("mine", tensors)
    base, residual = split_payload(payload)
    assert join_parts(base, residual) == payload
    assert len(base) + len(residual) < len(payload)


def test_the_payload_is_a_safetensors_file_for_everybody() -> None:
    payload = encode_payload("mine", parameters())
    read = safetensors.torch.load(payload)
    assert read["b.brain"].dtype == torch.bfloat16
    assert read["d.positions"].tolist() == list(range(11))
    assert torch.equal(read["a.half"], torch.from_numpy(parameters()["a.half"]))


def test_a_damaged_part_of_several_types_is_a_payload_error() -> None:
    base, residual = split_payload(encode_payload("mine", parameters(4)))
    rng = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(base)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        with suppress(PayloadError):
            join_parts(bytes(damaged), residual)


def test_infinity_in_a_half_type_and_a_bool_that_is_none_are_refused() -> None:
    with pytest.raises(PayloadError, match="NaN"):
        encode_payload("mine", {"a": np.array([np.inf], np.float16)})
    payload = bytearray(encode_payload("mine", {"a": np.array([True])}))
    payload[-1] = 2
    with pytest.raises(PayloadError):
        decode_payload(bytes(payload), None, None)
    with pytest.raises(PayloadError, match="complex"):
        encode_payload("mine", {"a": np.zeros(2, np.complex64)})


def test_shapes_of_another_type_are_other_shapes() -> None:
    _, decoded = decode_payload(encode_payload("mine", parameters()), None, None)
    shapes = {name: shape_of(array) for name, array in decoded.items()}
    payload = encode_payload("mine", parameters())
    check_payload(BytesIO(payload), len(payload), shapes)
    with pytest.raises(PayloadError, match="half"):
        check_payload(BytesIO(payload), len(payload), {**shapes, "a.half": (40, 7)})
