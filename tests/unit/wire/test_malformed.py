"""10,000 spoiled inputs a decoder: a valid record or a typed error, never anything else."""

import random
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from graft.errors import GraftError, MessageError, PayloadError
from graft.values import (
    Answer,
    Candidate,
    DomainProfile,
    Failure,
    LearnOrder,
    LearnReport,
    ModelCard,
    Order,
    ProbeOrder,
    Selection,
)
from graft.wire.codec import (
    decode_answer,
    decode_join,
    decode_order,
    encode_answer,
    encode_join,
    encode_order,
)
from graft.wire.parts import decode_base, join_parts, split_payload
from graft.wire.payload import decode_payload, encode_payload, model_id
from graft.wire.stubs import messages_pb2 as pb

NUM_SPOILED = 10_000
LIMIT_S = 20.0  # generous on a shared machine: about one second each when it is idle
LIMIT_BYTES = 8 * 1024 * 1024

PROFILE = DomainProfile(
    domain_id="site-1",
    task="gestures",
    num_samples=70,
    statistics_D=np.arange(12, dtype=np.float32),
    class_counts_C=np.array([30, 40]),
)
CARD = ModelCard(
    model_id="ab" * 32,
    domain_id="site-1",
    architecture="cnn1",
    payload_bytes=80_232,
    base_bytes=19_032,
    residual_bytes=50_886,
    class_mask_C=np.array([True, False]),
    round_index=1,
    parents=("cd" * 32,),
    profile=PROFILE,
    centroids_CF=np.ones((2, 3), np.float32),
    signature=b"signed",
)
ORDERS: list[Order] = [
    ProbeOrder(
        domain_id="d",
        round_index=3,
        method="hat",
        candidates=(CARD, CARD.for_probe()),
        coarse_distances=(0.5, 1.5),
    ),
    LearnOrder(
        domain_id="d",
        round_index=3,
        method="hat",
        sources=(CARD.for_fusion(),),
        register=True,
        groups=(CARD.for_fusion(),),
    ),
]
ANSWERS: list[Answer] = [
    PROFILE,
    Selection(
        domain_id="d",
        candidates=(Candidate(model_id="ab" * 32, coarse_distance=0.5, joint_score=0.25),),
        chosen=("ab" * 32,),
    ),
    LearnReport(
        domain_id="d",
        round_index=1,
        method="hat",
        architecture="cnn1",
        device_class="board",
        source_domains=("e", "f"),
        metrics={"accuracy": 0.5, "macro_f1": 0.25},
        compute_s=1.5,
        peak_memory_bytes=1_000,
        card=CARD,
    ),
    Failure(domain_id="d", round_index=1, method="hat", error="OSError", message="no disk"),
]
PAYLOAD = encode_payload(
    "net",
    {
        "w": np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32),
        "b": np.ones(6, np.float32),
    },
)
BASE, RESIDUAL = split_payload(PAYLOAD)


def spoiled(wholes: list[bytes], seed: int, number: int) -> Iterator[bytes]:
    """Bits flipped, bytes cut, inserted, repeated and overwritten with hostile lengths."""
    rng = random.Random(seed)
    for _ in range(number):
        data = bytearray(rng.choice(wholes))
        for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
            at = rng.randrange(len(data) + 1)
            kind = rng.randrange(6)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del data[at:]
            elif kind == 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            elif kind == 3:
                end = min(len(data), at + rng.randrange(1, 40))
                data[at:at] = data[at:end]
            elif kind == 4:
                data[at : at + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\xff" * 4, bytes(4)])
            else:
                del data[at : at + rng.randrange(1, 9)]
        yield bytes(data)


def never_breaks(
    decode: Callable[[bytes], object], error: type[GraftError], inputs: Iterator[bytes]
) -> int:
    """How many inputs ``decode`` refused with ``error``; anything else it raises escapes."""
    refused, start_s = 0, time.perf_counter()
    tracemalloc.start()
    try:
        for data in inputs:
            try:
                decode(data)
            except error:
                refused += 1
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start_s < LIMIT_S
    assert peak_bytes < LIMIT_BYTES
    return refused


def test_spoiled_orders_are_decoded_whole_or_refused() -> None:
    inputs = spoiled([encode_order(order) for order in ORDERS], 1, NUM_SPOILED)
    # What decodes must be fit to travel on: encoding it again may not be refused either.
    refused = never_breaks(lambda data: encode_order(decode_order(data)), MessageError, inputs)
    assert refused > NUM_SPOILED // 2


def test_spoiled_answers_are_decoded_whole_or_refused() -> None:
    inputs = spoiled([encode_answer(answer) for answer in ANSWERS], 2, NUM_SPOILED)
    refused = never_breaks(lambda data: encode_answer(decode_answer(data)), MessageError, inputs)
    assert refused > NUM_SPOILED // 2


def test_spoiled_joins_are_decoded_whole_or_refused() -> None:
    inputs = spoiled([encode_join("site-1")], 3, NUM_SPOILED)
    assert never_breaks(decode_join, MessageError, inputs) > NUM_SPOILED // 2


def test_no_spoiled_payload_passes_for_the_model_it_was() -> None:
    name = model_id(PAYLOAD)
    inputs = [data for data in spoiled([PAYLOAD], 4, NUM_SPOILED) if data != PAYLOAD]
    refused = never_breaks(
        lambda data: decode_payload(data, None, name), PayloadError, iter(inputs)
    )
    assert refused == len(inputs)


def test_spoiled_bases_are_decoded_whole_or_refused() -> None:
    refused = never_breaks(decode_base, PayloadError, spoiled([BASE], 5, NUM_SPOILED))
    assert refused > NUM_SPOILED // 2


@pytest.mark.parametrize("which", ["base", "residual"])
def test_spoiled_parts_join_to_a_payload_or_are_refused(which: str) -> None:
    def join(data: bytes) -> None:
        pair = (data, RESIDUAL) if which == "base" else (BASE, data)
        decode_payload(join_parts(*pair), None, None)

    inputs = spoiled([BASE if which == "base" else RESIDUAL], 6, NUM_SPOILED // 2)
    assert never_breaks(join, PayloadError, inputs) > NUM_SPOILED // 4


def test_a_stack_of_empty_records_is_refused() -> None:
    # Two bytes a candidate on the wire, so a million of them stay below the byte limit.
    selection = pb.Selection(domain_id="d", candidates=[pb.Candidate()] * 1_000_000)
    flood = pb.Envelope(version=1, selection=selection).SerializeToString()
    with pytest.raises(MessageError):
        decode_answer(flood)
