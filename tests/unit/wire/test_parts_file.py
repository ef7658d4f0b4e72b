"""Working on files gives what working on bytes gives, to the byte, in any block size."""

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graft.core.records import FloatArray
from graft.errors import PayloadError, PayloadLimitError
from graft.wire.payload import payload_file, raw_base
from graft.wire.payload.encoding import MAX_MAGNITUDE, decode_payload, encode_payload, model_id
from graft.wire.payload.parts import decode_base, join_parts, split_payload
from graft.wire.payload.parts_file import (
    PartFile,
    join_files,
    read_base,
    read_base_head,
    split_file,
)
from graft.wire.payload.payload_file import PayloadFacts, check_payload, map_values, write_payload
from graft.wire.payload.regions import open_work

bounded = st.floats(
    min_value=-MAX_MAGNITUDE, max_value=MAX_MAGNITUDE, width=32, allow_subnormal=True
)
tensors = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=4, max_side=5), elements=bounded
)
models = st.dictionaries(st.sampled_from(["a", "b.c", "d", "é"]), tensors, min_size=1)
anything = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=[3, 256 * 1024])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Values a block; three cut every row and every tensor somewhere."""
    for module in (payload_file, raw_base):
        monkeypatch.setattr(module, "BLOCK_VALUES", request.param)
    return int(request.param)


def trained_like(seed: int) -> dict[str, FloatArray]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_t(8, size=(40, 3, 70)) * rng.lognormal(0, 0.3, size=(40, 1, 1))
    return {
        "w": rows.astype(np.float32),
        "b": rng.normal(size=40).astype(np.float32),
        "zero": np.zeros((7, 900), np.float32),
    }


def split_in(folder: Path, payload: bytes) -> tuple[bytes, bytes]:
    with open_work(folder) as file, open_work(folder) as base, open_work(folder) as residual:
        file.write(payload)
        split_file(check_payload(file, len(payload), None), file, base, residual, folder)
        for part in (base, residual):
            part.seek(0)
        return base.read(), residual.read()


def part_of(data: bytes) -> PartFile:
    return PartFile(file=io.BytesIO(data), num_bytes=len(data))


def join_in(folder: Path, base: bytes, residual: bytes) -> tuple[bytes, PayloadFacts]:
    with open_work(folder) as sink:
        facts = join_files(part_of(base), part_of(residual), sink, folder, None)
        sink.seek(0)
        return sink.read(), facts


@anything
@given(model=models)
def test_split_and_joined_files_are_those_of_bytes(
    model: dict[str, FloatArray], block: int, tmp_path: Path
) -> None:
    payload = encode_payload("net", model)
    base, residual = split_in(tmp_path, payload)
    assert (base, residual) == split_payload(payload)
    joined, facts = join_in(tmp_path, base, residual)
    assert joined == payload
    assert facts.model_id == model_id(payload)
    assert facts.num_bytes == len(payload)


@pytest.mark.parametrize("block", [997], indirect=True)
def test_sections_of_many_blocks_pack_to_the_same_bytes(block: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = trained_like(0) | {"wide": rng.normal(size=(3, 400_000)).astype(np.float32)}
    payload = encode_payload("net", model)
    assert split_in(tmp_path, payload) == split_payload(payload)


@anything
@given(model=models)
def test_a_written_payload_is_the_encoded_one(
    model: dict[str, FloatArray], block: int, tmp_path: Path
) -> None:
    with open_work(tmp_path) as sink:
        facts = write_payload("net", model, sink)
        sink.seek(0)
        payload = sink.read()
        assert check_payload(sink, len(payload), None) == facts
    assert payload == encode_payload("net", model)


@anything
@given(model=models)
def test_the_base_read_from_a_file_is_the_decoded_one(
    model: dict[str, FloatArray], block: int, tmp_path: Path
) -> None:
    base, _ = split_payload(encode_payload("net", model))
    with open_work(tmp_path) as sink:
        architecture, got = read_base(part_of(base), sink, tmp_path, None)
    assert read_base_head(part_of(base)) == ("net", {n: a.shape for n, a in got.items()})
    wanted = decode_base(base)
    assert architecture == wanted[0]
    assert {n: a.tobytes() for n, a in got.items()} == {
        n: a.tobytes() for n, a in wanted[1].items()
    }


def test_mapped_values_are_the_models_own_and_writing_them_changes_no_file(tmp_path: Path) -> None:
    with open_work(tmp_path) as sink:
        facts = write_payload("net", trained_like(3), sink)
        mapped = map_values(sink, facts.shapes, facts.data_at)
    assert {n: a.tobytes() for n, a in mapped.items()} == {
        n: a.tobytes() for n, a in trained_like(3).items()
    }
    mapped["w"] += 1.0
    assert mapped["w"][0, 0, 0] == trained_like(3)["w"][0, 0, 0] + 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 2 * MAX_MAGNITUDE])
def test_values_out_of_bounds_are_refused(value: float, tmp_path: Path) -> None:
    spoiled = trained_like(0) | {"b": np.full(40, value, np.float32)}
    with open_work(tmp_path) as sink, pytest.raises(PayloadLimitError, match="'b'"):
        write_payload("net", spoiled, sink)
    payload = encode_payload("net", trained_like(0))
    at = facts_of(tmp_path, payload).data_at  # where b's values start, the first by name
    spoiled_payload = payload[:at] + np.float32(value).tobytes() + payload[at + 4 :]
    with pytest.raises(PayloadLimitError, match="'b'"):
        facts_of(tmp_path, spoiled_payload)


def facts_of(folder: Path, payload: bytes) -> PayloadFacts:
    with open_work(folder) as file:
        file.write(payload)
        return check_payload(file, len(payload), None)


def test_other_shapes_than_expected_are_refused_before_a_value_is_read(tmp_path: Path) -> None:
    payload = encode_payload("net", trained_like(0))
    base, residual = split_payload(payload)
    wrong = {"w": (1,)}
    with open_work(tmp_path) as file:
        file.write(payload)
        for refuse in (
            lambda: check_payload(file, len(payload), wrong),
            lambda: join_files(part_of(base), part_of(residual), file, tmp_path, wrong),
            lambda: read_base(part_of(base), file, tmp_path, wrong),
        ):
            with pytest.raises(PayloadLimitError, match="wanted"):
                refuse()


@pytest.mark.parametrize("seed", range(4))
def test_spoiled_parts_give_what_bytes_give_or_a_payload_error(seed: int, tmp_path: Path) -> None:
    """2,000 spoiled parts: the file reader agrees with the byte reader on each."""
    rng = np.random.default_rng(seed)
    model = {"w": rng.normal(size=(5, 9)).astype(np.float32), "b": np.zeros(5, np.float32)}
    parts = split_payload(encode_payload("net", model))
    for _ in range(500):
        which = int(rng.integers(2))
        spoiled = bytearray(parts[which])
        match int(rng.integers(3)):
            case 0:
                spoiled[int(rng.integers(len(spoiled)))] ^= 1 << int(rng.integers(8))
            case 1:
                del spoiled[int(rng.integers(len(spoiled))) :]
            case 2:
                spoiled += b"\0" * int(rng.integers(1, 9))
        base, residual = (bytes(spoiled) if which == i else part for i, part in enumerate(parts))
        wanted = got = None
        with suppress(PayloadError):
            wanted = join_parts(base, residual)
        with suppress(PayloadError):
            got, _ = join_in(tmp_path, base, residual)
        assert got == wanted


def test_a_payload_file_that_decoding_refuses_is_refused(tmp_path: Path) -> None:
    payload = encode_payload("net", trained_like(0))
    for spoiled in (payload[:-1], payload + b"\0", b"", payload[:7], b"\xff" * 64):
        with pytest.raises(PayloadError):
            decode_payload(spoiled, None, None)
        with pytest.raises(PayloadError):
            facts_of(tmp_path, spoiled)
