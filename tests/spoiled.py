"""Bytes spoiled in every way a line or a liar spoils them, and every decoder that must survive."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from graft_server.catalogue import read_cards, write_cards

from graft.core.exchange import (
    Failure,
    FusionDiagnostics,
    ProbeRequest,
    Request,
    Response,
    Selection,
    TrainRequest,
    TrainResult,
)
from graft.core.payload import decode_payload, encode_payload
from graft.core.records import Candidate, DomainProfile, ModelCard, RejectedSource
from graft.errors import GraftError, MessageError, PayloadError, RunError
from graft.wire.messages.codec import (
    decode_card,
    decode_join,
    decode_request,
    decode_response,
    encode_card,
    encode_join,
    encode_request,
    encode_response,
)
from graft.wire.payload.parts import decode_base, join_parts, split_payload

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
REQUESTS: list[Request] = [
    ProbeRequest(
        domain_id="d",
        round_index=3,
        method="hat",
        candidates=(CARD, CARD.for_probe()),
        coarse_distances=(0.5, 1.5),
    ),
    TrainRequest(
        domain_id="d",
        round_index=3,
        method="hat",
        sources=(CARD.for_fusion(),),
        register=True,
        architecture_averages=(CARD.for_fusion(),),
    ),
]
RESPONSES: list[Response] = [
    PROFILE,
    Selection(
        domain_id="d",
        candidates=(Candidate(model_id="ab" * 32, coarse_distance=0.5, joint_score=0.25),),
        chosen=("ab" * 32,),
        rejected=(RejectedSource(by="d", domain_id="e", model_id="cd" * 32, reason="scale"),),
    ),
    TrainResult(
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
        diagnostics=FusionDiagnostics(
            mixture_SQ=np.full((2, 6), 0.5, np.float32),
            dictionary_E4=np.full((3, 4), 0.25, np.float32),
        ),
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


def spoiled(wholes: list[bytes], seed: int | str, number: int) -> Iterator[bytes]:
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


@dataclass(frozen=True)
class Decoder:
    """A way in for bytes: what it makes of them, the one error it may raise, sound examples."""

    name: str
    decode: Callable[[bytes], object]
    error: type[GraftError]
    wholes: Sequence[bytes]


def decoders(folder: Path) -> list[Decoder]:
    """Every decoder of what comes from elsewhere; ``folder`` is for those that read files.

    What decodes must be fit to travel on, so records are encoded again.
    """
    path = folder / "catalogue.parquet"
    write_cards([CARD, CARD.for_probe()], path)

    def read_catalogue(data: bytes) -> object:
        path.write_bytes(data)
        return read_cards(path)

    return [
        Decoder(
            "orders",
            lambda data: encode_request(decode_request(data)),
            MessageError,
            [encode_request(request) for request in REQUESTS],
        ),
        Decoder(
            "answers",
            lambda data: encode_response(decode_response(data)),
            MessageError,
            [encode_response(response) for response in RESPONSES],
        ),
        Decoder("joins", decode_join, MessageError, [encode_join("site-1")]),
        Decoder(
            "cards", lambda data: encode_card(decode_card(data)), MessageError, [encode_card(CARD)]
        ),
        Decoder("payloads", lambda data: decode_payload(data, None, None), PayloadError, [PAYLOAD]),
        Decoder("bases", decode_base, PayloadError, [BASE]),
        Decoder(
            "bases-joined",
            lambda data: decode_payload(join_parts(data, RESIDUAL), None, None),
            PayloadError,
            [BASE],
        ),
        Decoder(
            "residuals",
            lambda data: decode_payload(join_parts(BASE, data), None, None),
            PayloadError,
            [RESIDUAL],
        ),
        Decoder("catalogues", read_catalogue, RunError, [path.read_bytes()]),
    ]
