"""10,000 spoiled inputs a decoder: a valid record or a typed error, never anything else."""

import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from fakes import RUN, SIGNER
from graft_server.request_log import response_to
from spoiled import BASE, CARD, PAYLOAD, RESIDUAL, decoders, spoiled

from graft.core.exchange import Failure, TrainRequest, TrainResult
from graft.core.payload import decode_payload, model_id
from graft.errors import GraftError, MessageError, PayloadChangedError, PayloadError
from graft.wire.messages.card_signature import verify_card
from graft.wire.messages.codec import decode_card, decode_response, encode_card, encode_response
from graft.wire.payload.parts import join_parts
from graft.wire.stubs import messages_pb2 as pb

NUM_SPOILED = 10_000
NUM_REPLAYS = 1_000
LIMIT_S = 60.0  # of processor time; a few seconds each
LIMIT_BYTES = 8 * 1024 * 1024
NAMES = (
    "orders", "answers", "joins", "cards", "payloads", "bases", "bases-joined", "residuals",
    "catalogues",
)  # fmt: skip


def never_breaks(
    decode: Callable[[bytes], object], error: type[GraftError], inputs: Iterator[bytes]
) -> int:
    """How many inputs ``decode`` refused with ``error``; anything else it raises escapes."""
    refused, start_s = 0, time.process_time()
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
    assert time.process_time() - start_s < LIMIT_S
    assert peak_bytes < LIMIT_BYTES
    return refused


@pytest.mark.parametrize("name", NAMES)
def test_spoiled_bytes_are_decoded_whole_or_refused(name: str, tmp_path: Path) -> None:
    decoder = {each.name: each for each in decoders(tmp_path)}[name]
    inputs = spoiled(list(decoder.wholes), NAMES.index(name), NUM_SPOILED)
    assert never_breaks(decoder.decode, decoder.error, inputs) > NUM_SPOILED // 2


def test_every_decoder_is_among_them(tmp_path: Path) -> None:
    assert {each.name for each in decoders(tmp_path)} == set(NAMES)


def test_no_spoiled_payload_passes_for_the_model_it_was() -> None:
    name = model_id(PAYLOAD)
    inputs = [data for data in spoiled([PAYLOAD], 4, NUM_SPOILED) if data != PAYLOAD]
    refused = never_breaks(
        lambda data: decode_payload(data, None, name), PayloadError, iter(inputs)
    )
    assert refused == len(inputs)


def flips(whole: bytes) -> Iterator[bytes]:
    """``whole`` with each of its bits flipped in turn."""
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def test_every_single_flipped_bit_of_a_payload_is_refused() -> None:
    name = model_id(PAYLOAD)
    for data in flips(PAYLOAD):
        with pytest.raises(PayloadError):
            decode_payload(data, None, name)


@pytest.mark.parametrize("which", ["base", "residual"])
def test_no_flipped_bit_of_a_part_makes_another_model(which: str) -> None:
    # A deflated section ends in bits that nobody reads: those few flips change nothing.
    name, same = model_id(PAYLOAD), 0
    whole = BASE if which == "base" else RESIDUAL
    for data in flips(whole):
        pair = (data, RESIDUAL) if which == "base" else (BASE, data)
        try:
            payload = join_parts(*pair)
            decode_payload(payload, None, name)
        except PayloadError:
            continue
        assert payload == PAYLOAD
        same += 1
    assert same < 8 * len(whole) / 20


def test_no_replayed_manifest_is_taken() -> None:
    rng = Random(7)
    for number in range(NUM_REPLAYS):
        signed = SIGNER.sign(replace(CARD, round_index=rng.randrange(1, 100)))
        kind = number % 3
        run = RUN
        if kind == 0:  # signed in an old round, told as this one's
            replayed = replace(signed, round_index=signed.round_index + rng.randrange(1, 100))
        elif kind == 1:  # another domain's model, told as one's own
            replayed = replace(signed, domain_id=f"site-{rng.randrange(2, 10**6)}")
        else:  # admitted in another run of the same server
            replayed, run = signed, f"{RUN}-{rng.randrange(10**6)}"
        data = encode_card(replayed)
        with pytest.raises(PayloadChangedError):
            verify_card(run, decode_card(data), SIGNER.public_key)


def test_no_replayed_report_answers_another_order() -> None:
    rng = Random(8)
    for number in range(NUM_REPLAYS):
        request = TrainRequest(
            domain_id=f"site-{rng.randrange(50)}",
            round_index=rng.randrange(1, 50),
            method="graft",
            sources=(),
            register=True,
        )
        report = TrainResult(
            domain_id=request.domain_id if number % 3 else request.domain_id + "x",
            round_index=request.round_index - (number % 3 == 1),
            method="graft" if number % 3 < 2 else "hat",
            architecture="cnn1",
            device_class="board",
            source_domains=(),
            metrics={},
            compute_s=0.0,
            peak_memory_bytes=0,
        )
        assert isinstance(response_to(request, encode_response(report)), Failure)


def test_a_stack_of_empty_records_is_refused() -> None:
    # Two bytes a candidate on the wire, so a million of them stay below the byte limit.
    selection = pb.Selection(domain_id="d", candidates=[pb.Candidate()] * 1_000_000)
    flood = pb.Envelope(version=1, selection=selection).SerializeToString()
    with pytest.raises(MessageError):
        decode_response(flood)
