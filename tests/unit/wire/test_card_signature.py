"""A signature holds for one card in one run, to the last covered field."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes import RUN, SIGNER
from graft_server.signing import Signer
from hypothesis import given
from hypothesis import strategies as st

from graft.core.records import DomainProfile, ModelCard
from graft.errors import PayloadChangedError, RunError
from graft.wire.messages.card_signature import manifest_bytes, verify_card
from graft.wire.messages.codec import decode_card, encode_card

CARD = ModelCard(
    model_id="0a" * 32,
    domain_id="ann",
    architecture="mlp",
    payload_bytes=30,
    base_bytes=10,
    residual_bytes=20,
    class_mask_C=np.array([True, False, True]),
    round_index=1,
    parents=("b" * 64, "c" * 64),
    profile=DomainProfile(
        domain_id="ann",
        task="imu-world",
        num_samples=3,
        statistics_D=np.array([0.5, -1.5], np.float32),
        class_counts_C=None,
    ),
    centroids_CF=np.arange(6, dtype=np.float32).reshape(3, 2),
)
SIGNED = SIGNER.sign(CARD)
CHANGES: list[dict[str, object]] = [
    {"model_id": "0b" * 32},
    {"domain_id": "ben"},
    {"architecture": "gru"},
    {"payload_bytes": 31},
    {"base_bytes": 11},
    {"residual_bytes": 21},
    {"class_mask_C": np.array([True, True, True])},
    {"class_mask_C": np.array([True, False, True, False])},
    {"round_index": 0},
    {"parents": ()},
    {"parents": ("b" * 64,)},
    {"parents": ("c" * 64, "b" * 64)},
    {"parents": ("b" * 64, "c" * 64, "d" * 64)},
    {"profile": None},
    {"profile": replace(CARD.profile, domain_id="ben")},
    {"profile": replace(CARD.profile, task="other")},
    {"profile": replace(CARD.profile, num_samples=4)},
    {"profile": replace(CARD.profile, statistics_D=np.array([0.5, 1.5], np.float32))},
    {"profile": replace(CARD.profile, class_counts_C=np.array([1, 0, 2]))},
    {"centroids_CF": None},
    {"centroids_CF": CARD.centroids_CF[::-1].copy()},
    {"centroids_CF": CARD.centroids_CF.reshape(2, 3)},
    # The sum stays the same, and so do the digits one after the other.
    {"payload_bytes": 301, "base_bytes": 0},
]
UNCOVERED = {"signature", "probe_signature", "fusion_signature"}
names = st.text(max_size=3)


def check(card: ModelCard, run: str = RUN, public_key: bytes = SIGNER.public_key) -> None:
    verify_card(run, card, public_key)


def test_a_signed_card_verifies_however_much_of_it_a_device_is_sent() -> None:
    for card in (SIGNED, SIGNED.for_probe(), SIGNED.for_fusion()):
        check(card)
        check(decode_card(encode_card(card)))
        assert len(card.signature) == 64


def test_centroids_changed_on_the_way_are_refused() -> None:
    sent = SIGNED.for_probe()
    with pytest.raises(PayloadChangedError):
        check(replace(sent, centroids_CF=CARD.centroids_CF + 1))
    with pytest.raises(PayloadChangedError):  # a signature holds for the form that it was made for
        check(replace(sent, centroids_CF=None))
    assert sent.for_probe() is sent


def test_a_card_of_a_finished_run_of_version_0_2_still_verifies_where_that_is_wanted() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    old = replace(CARD, signature=key.sign(manifest_bytes(RUN, CARD, former=True)))
    verify_card(RUN, old, SIGNER.public_key, former=True)
    with pytest.raises(PayloadChangedError):
        check(old)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "+".join(change))
def test_a_signed_card_with_a_field_changed_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(PayloadChangedError, match=r"card of .*got .*wanted"):
        check(replace(SIGNED, **change))  # type: ignore[arg-type]


def test_every_field_is_covered_but_the_signatures() -> None:
    changed = {name for change in CHANGES for name in change}
    assert changed | UNCOVERED == set(ModelCard.__dataclass_fields__)


@given(st.integers(0, 8 * 64 - 1))
def test_every_flipped_bit_of_a_signature_is_refused(bit: int) -> None:
    flipped = bytearray(SIGNED.signature)
    assert len(flipped) == 64
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PayloadChangedError):
        check(replace(SIGNED, signature=bytes(flipped)))


@pytest.mark.parametrize("length", [0, 1, 63, 65, 1024])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    signature = (SIGNED.signature * 16)[:length]
    with pytest.raises(PayloadChangedError):
        check(replace(SIGNED, signature=signature))


def test_a_card_without_signature_is_refused_as_such() -> None:
    with pytest.raises(PayloadChangedError, match="got no signature"):
        check(CARD)


def test_a_card_signed_for_another_run_is_refused() -> None:
    with pytest.raises(PayloadChangedError):
        check(SIGNED, run="another")


def test_a_card_signed_with_another_key_is_refused() -> None:
    other = Signer(RUN, Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))
    with pytest.raises(PayloadChangedError):
        check(other.sign(CARD))
    check(other.sign(CARD), public_key=other.public_key)


def test_a_key_that_is_none_of_ours_is_no_reason_to_trust() -> None:
    stranger = X25519PrivateKey.generate().public_key()
    pem = stranger.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for public_key in (b"", b"not a key", SIGNER.public_key[:60], pem):
        with pytest.raises(RunError, match="public key"):
            check(SIGNED, public_key=public_key)


@given(*[st.tuples(names, names, st.integers(0, 99), st.integers(0, 99))] * 2)
def test_two_cards_share_their_bytes_only_if_they_are_the_same(
    one: tuple[str, str, int, int], other: tuple[str, str, int, int]
) -> None:
    def signed_bytes(run: str, architecture: str, base_bytes: int, residual_bytes: int) -> bytes:
        return manifest_bytes(
            run,
            replace(
                CARD,
                architecture=architecture,
                base_bytes=base_bytes,
                residual_bytes=residual_bytes,
            ),
        )

    assert (signed_bytes(*one) == signed_bytes(*other)) == (one == other)
