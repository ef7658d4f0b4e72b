"""The two parts are those of the format's formulas, in memory and in files, in any block size."""

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference_parts import reference_parts

from graft.core import payload as encoding
from graft.core.payload import (
    MAX_MAGNITUDE,
    PayloadFacts,
    check_payload,
    decode_payload,
    encode_payload,
    load_tensors,
    model_id,
    write_payload,
)
from graft.core.records import FloatArray
from graft.core.tasks import Task
from graft.errors import PayloadError, PayloadLimitError
from graft.models import build_network, parameters_of
from graft.wire.payload import blocks
from graft.wire.payload.blocks import PartFile, open_work, value_blocks, work_folder
from graft.wire.payload.parts import (
    decode_base,
    join_files,
    join_parts,
    read_base,
    read_base_header,
    split_file,
    split_payload,
)

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
    for module in (encoding, blocks):
        monkeypatch.setattr(module, "BLOCK_VALUES", request.param)
    return int(request.param)


@pytest.fixture(params=["memory", "files"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path


def trained_like(seed: int) -> dict[str, FloatArray]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_t(8, size=(40, 3, 70)) * rng.lognormal(0, 0.3, size=(40, 1, 1))
    return {
        "w": rows.astype(np.float32),
        "b": rng.normal(size=40).astype(np.float32),
        "zero": np.zeros((7, 900), np.float32),
    }


def split_in(folder: Path | None, payload: bytes) -> tuple[bytes, bytes]:
    with open_work(folder) as file, open_work(folder) as base, open_work(folder) as residual:
        file.write(payload)
        split_file(check_payload(file, len(payload), None), file, base, residual, folder)
        for part in (base, residual):
            part.seek(0)
        return base.read(), residual.read()


def part_of(data: bytes) -> PartFile:
    return PartFile(file=BytesIO(data), num_bytes=len(data))


def join_in(folder: Path | None, base: bytes, residual: bytes) -> tuple[bytes, PayloadFacts]:
    with open_work(folder) as sink:
        facts = join_files(part_of(base), part_of(residual), sink, folder, None)
        sink.seek(0)
        return sink.read(), facts


def as_bytes(model: dict[str, FloatArray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in model.items()}


@anything
@given(model=models)
def test_the_parts_are_those_of_the_formulas_and_join_again(
    model: dict[str, FloatArray], block: int, folder: Path | None
) -> None:
    payload = encode_payload("net", model)
    base, residual = split_in(folder, payload)
    assert (base, residual) == reference_parts("net", model)
    joined, facts = join_in(folder, base, residual)
    assert joined == payload
    assert facts.model_id == model_id(payload)
    assert facts.num_bytes == len(payload)


def edge_cases() -> Iterator[dict[str, FloatArray]]:
    """Codes at both ends and at every rounding, zeros of both signs, subnormals, extremes."""
    steps = np.arange(-127, 127.25, 0.25, dtype=np.float32)
    yield {"w": np.stack([steps, steps[::-1] * np.float32(1e-3), steps * np.float32(1e6)])}
    yield {"w": np.array([[0.0, -0.0], [1e-45, -1e-45], [1e9, -1e9]], np.float32)}
    yield {"b": np.array([-0.0, 1e-45, -1e9, 1e9, np.pi], np.float32), "c": np.float32(2)[()]}
    yield {"w": np.zeros((5, 7), np.float32), "v": np.full((2, 1, 3), -1e-38, np.float32)}


@pytest.mark.parametrize("model", list(edge_cases()), ids=range(4))
def test_edge_values_split_and_join(
    model: dict[str, FloatArray], block: int, folder: Path | None
) -> None:
    model = {name: np.asarray(array, np.float32) for name, array in model.items()}
    parts = split_in(folder, encode_payload("net", model))
    assert parts == reference_parts("net", model)
    assert join_in(folder, *parts)[0] == encode_payload("net", model)


@pytest.mark.parametrize("architecture", ["cnn-small", "cnn-large", "mlp-500"])
def test_networks_of_the_zoo_split_and_join(architecture: str) -> None:
    task = Task(name="t", modality="imu", sample_shape=(6, 128), classes=("a", "b"))
    model = parameters_of(build_network(architecture, task, 0))
    payload = encode_payload(architecture, model)
    parts = split_payload(payload)
    assert parts == reference_parts(architecture, model)
    assert join_parts(*parts) == payload


@pytest.mark.parametrize("block", [997], indirect=True)
def test_sections_of_many_blocks_pack_to_the_same_bytes(block: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = trained_like(0) | {"wide": rng.normal(size=(3, 400_000)).astype(np.float32)}
    assert split_in(tmp_path, encode_payload("net", model)) == reference_parts("net", model)


@anything
@given(model=models)
def test_blocks_hold_every_value_once_and_no_more_than_their_size(
    model: dict[str, FloatArray], block: int
) -> None:
    shapes = {name: array.shape for name, array in model.items()}
    laid = value_blocks(shapes)
    assert all(0 < sum(piece.size for piece in pieces) <= block for pieces in laid)
    for name, array in model.items():
        assert sum(p.size for pieces in laid for p in pieces if p.name == name) == array.size


def test_only_a_large_model_is_worked_on_in_files(tmp_path: Path) -> None:
    assert work_folder(tmp_path, {"w": (2048, 2047)}) is None  # 8 kB below 16 MB
    assert work_folder(tmp_path, {"w": (2048, 2048)}) == tmp_path
    assert work_folder(None, {"w": (2048, 2048)}) is None


@anything
@given(model=models)
def test_a_written_payload_is_the_encoded_one(
    model: dict[str, FloatArray], block: int, folder: Path | None
) -> None:
    with open_work(folder) as sink:
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
    architecture, got = read_base(part_of(base), tmp_path, None)
    assert read_base_header(part_of(base)) == ("net", {n: a.shape for n, a in got.items()})
    assert (architecture, as_bytes(got)) == ("net", as_bytes(decode_base(base)[1]))


@pytest.mark.parametrize("mapped", [False, True])
def test_loaded_values_are_the_models_own_and_writing_them_changes_no_file(
    mapped: bool, tmp_path: Path
) -> None:
    with open_work(tmp_path) as sink:
        facts = write_payload("net", trained_like(3), sink)
        loaded = load_tensors(sink, facts.shapes, facts.data_at, mapped=mapped)
        assert as_bytes(loaded) == as_bytes(trained_like(3))
        loaded["w"] += 1.0
        again = load_tensors(sink, facts.shapes, facts.data_at, mapped=mapped)
    assert as_bytes(again) == as_bytes(trained_like(3))


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
            lambda: read_base(part_of(base), tmp_path, wrong),
        ):
            with pytest.raises(PayloadLimitError, match="wanted"):
                refuse()


@pytest.mark.parametrize("seed", range(4))
def test_spoiled_parts_give_what_bytes_give_or_a_payload_error(seed: int, tmp_path: Path) -> None:
    """2,000 spoiled parts: what is in files agrees with what is in memory on each."""
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
