"""Base and residual: small, lossless together, and safe to read apart."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graft.core.payload import MAX_MAGNITUDE, encode_payload
from graft.core.records import FloatArray
from graft.errors import PayloadError, PayloadLimitError
from graft.wire.payload.blocks import PartFile, PartReader, pack_plane
from graft.wire.payload.parts import decode_base, join_parts, split_payload

bounded = st.floats(
    min_value=-MAX_MAGNITUDE, max_value=MAX_MAGNITUDE, width=32, allow_subnormal=True
)
tensors = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=4, max_side=5), elements=bounded
)
models = st.dictionaries(st.sampled_from(["a", "b.c", "d", "é"]), tensors, min_size=1)


def trained_like(sizes: list[tuple[int, ...]]) -> dict[str, FloatArray]:
    """Heavy-tailed rows of unequal scale beside small biases, as trained layers have."""
    rng = np.random.default_rng(0)
    model = {}
    for i, size in enumerate(sizes):
        row_scale = rng.lognormal(0, 0.3, size=(size[0],) + (1,) * (len(size) - 1))
        rows = rng.standard_t(8, size=size) * row_scale / np.sqrt(np.prod(size[1:]))
        model[f"layer{i}.weight"] = rows.astype(np.float32)
        model[f"layer{i}.bias"] = rng.normal(0, 0.05, size=size[0]).astype(np.float32)
    return model


@settings(max_examples=80, deadline=None)
@given(models)
def test_the_parts_join_to_the_payload_to_the_bit(model: dict[str, FloatArray]) -> None:
    payload = encode_payload("net", model)
    assert join_parts(*split_payload(payload)) == payload


@settings(max_examples=80, deadline=None)
@given(models)
def test_the_base_is_within_half_a_step_of_every_row(model: dict[str, FloatArray]) -> None:
    base, _ = split_payload(encode_payload("net", model))
    architecture, approximate = decode_base(base)
    assert architecture == "net"
    for name, true in model.items():
        assert approximate[name].shape == true.shape
        if true.ndim < 2:  # the upper half of a float32 keeps 7 bits behind the leading one
            bound = np.abs(true) * 2.0**-7 + 1e-38
        else:
            rows = np.abs(true.reshape(true.shape[0], -1)).max(axis=1)
            step = (rows / 127).reshape(-1, *[1] * (true.ndim - 1))
            bound = step * (0.5 + 1e-4) + 1e-43  # subnormal rows keep no finer scale
        assert (np.abs(approximate[name].astype(float) - true) <= bound).all()


@pytest.mark.parametrize(
    "sizes",
    [
        [(32, 6, 7), (64, 32, 5), (64, 128)],  # 20,000 values
        [(64, 9, 7), (128, 64, 5), (128, 128, 3), (10, 128)],  # 96,000
        [(64, 9, 7), (128, 64, 5), (256, 128, 5), (256, 256, 4), (30, 256)],  # 479,000
    ],
)
def test_the_base_is_a_quarter_and_both_parts_are_below_nine_tenths(
    sizes: list[tuple[int, ...]],
) -> None:
    # A Gaussian float32 carries about 26.5 of its 32 bits: 0.83 is the floor for both parts.
    payload = encode_payload("net", trained_like(sizes))
    base, residual = split_payload(payload)
    assert len(base) <= 0.25 * len(payload)
    assert len(base) + len(residual) <= 0.90 * len(payload)


def test_splitting_twice_gives_the_same_bytes() -> None:
    payload = encode_payload("net", trained_like([(8, 4, 3)]))
    assert split_payload(payload) == split_payload(payload)


def test_every_truncation_of_a_part_is_refused() -> None:
    base, residual = split_payload(encode_payload("net", trained_like([(4, 3), (2, 4)])))
    for length in range(len(base)):
        with pytest.raises(PayloadError):
            decode_base(base[:length])
    for length in range(len(residual)):
        with pytest.raises(PayloadError):
            join_parts(base, residual[:length])


def test_a_flipped_bit_of_a_part_is_refused_or_changes_the_payload() -> None:
    payload = encode_payload("net", trained_like([(4, 3), (2, 4)]))
    base, residual = split_payload(payload)
    harmless = 0
    for part, other in ((base, residual), (residual, base)):
        for bit in range(len(part) * 8):
            flipped = bytearray(part)
            flipped[bit // 8] ^= 1 << bit % 8
            pair = (bytes(flipped), other) if part is base else (other, bytes(flipped))
            try:
                harmless += join_parts(*pair) == payload
            except PayloadError:
                continue
    # Deflate leaves bits behind its end and has several ways to write one run of zeros.
    assert harmless < 0.05 * 8 * (len(base) + len(residual))


def test_noise_is_stored_and_runs_are_deflated() -> None:
    noise = np.random.default_rng(0).bytes(10_000)
    assert packed(noise) == struct.pack("<BI", 0, 10_000) + noise
    assert len(packed(bytes(10_000))) < 100
    part = b"word" + packed(bytes(10_000)) + packed(noise)
    reader = PartReader(PartFile(file=BytesIO(part), num_bytes=len(part)), b"word")
    for wanted in (bytes(10_000), noise):
        sink = BytesIO()
        reader.plane(10_000, sink)
        assert sink.getvalue() == wanted
    reader.finish()


def packed(plane: bytes) -> bytes:
    sink = BytesIO()
    pack_plane(BytesIO(plane), sink)
    return sink.getvalue()


def test_a_section_that_inflates_without_end_is_cut_off() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9, -15)  # 50 MB in 50 kB
    part = b"GRB1" + struct.pack("<BI", 1, len(bomb)) + bomb
    with pytest.raises(PayloadLimitError, match="grows beyond"):
        decode_base(part)


def test_the_base_of_another_architecture_is_refused() -> None:
    base, _ = split_payload(encode_payload("net", trained_like([(4, 3)])))
    with pytest.raises(PayloadLimitError, match="wanted"):
        decode_base(base, {"layer0.weight": (4, 4), "layer0.bias": (4,)})


def test_a_scale_that_is_not_finite_is_refused_by_name() -> None:
    model = {"w": np.full((1, 4), 127.0, np.float32)}
    base, _ = split_payload(encode_payload("net", model))
    one = b"\x00\x01\x00\x00\x00"  # a stored section of one byte, four of them: the scale
    scale = one + b"\x00" + one + b"\x00" + one + b"\x80" + one + b"\x3f"
    assert base.count(scale) == 1
    infinite = one + b"\x00" + one + b"\x00" + one + b"\x80" + one + b"\x7f"
    with pytest.raises(PayloadLimitError, match="'w'"):
        decode_base(base.replace(scale, infinite))
