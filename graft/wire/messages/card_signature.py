"""The server's signature of a card, and its verification (ours).

The signed bytes are written by hand: protobuf's may differ between versions, and a signature
must still verify years later.
"""

from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from graft.core.records import ModelCard
from graft.errors import PayloadChangedError, RunError

_PURPOSE: Final = b"graft manifest 1"  # so that no other signature can be taken for this one


def manifest_bytes(run: str, card: ModelCard) -> bytes:
    """The bytes that a signature covers: one card, admitted in one run.

    Covered: run, model id, domain id, architecture, round, the three lengths, class mask and
    parents. Not covered: the profile, which no device is sent, and the centroids, which travel
    on probe cards only: the same signature must hold with and without them. Centroids forged
    on the way can spoil a probe's score, never the model that is fetched for it.
    """
    numbers = (card.round_index, card.payload_bytes, card.base_bytes, card.residual_bytes)
    fields = (
        _PURPOSE,
        run.encode(),
        card.model_id.encode(),
        card.domain_id.encode(),
        card.architecture.encode(),
        *(str(number).encode() for number in numbers),
        card.class_mask_C.tobytes(),
        *(parent.encode() for parent in card.parents),  # last: only their number is open
    )
    return joined_fields(*fields)


def joined_fields(*fields: bytes) -> bytes:
    """The fields, each with its length before it: no two lists share their bytes."""
    return b"".join(len(field).to_bytes(8, "big") + field for field in fields)


def verify_card(run: str, card: ModelCard, public_key: bytes) -> None:
    """Refuse a card that the server of ``run`` did not sign as it stands.

    ``public_key`` is the PEM text of the run's ``keys/server.pub``. Raises PayloadChangedError
    for a missing or wrong signature, RunError where ``public_key`` is none.
    """
    # Results contain these messages and a run's hash covers them, so neither the key nor the
    # folder's name may be in them.
    wanted = f"wanted the server's over model {card.model_id} in this run"
    if not card.signature:
        raise PayloadChangedError(f"card of {card.domain_id}: got no signature, {wanted}")
    try:
        read_public_key(public_key).verify(card.signature, manifest_bytes(run, card))
    except InvalidSignature as error:
        raise PayloadChangedError(
            f"card of {card.domain_id}: got a signature over something else, {wanted}"
        ) from error


def read_public_key(pem: bytes) -> Ed25519PublicKey:
    """A run's public key from PEM text; raises RunError where it is none."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RunError(f"public key: got {len(pem)} bytes, wanted Ed25519 as PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise RunError(f"public key: got {type(key).__name__}, wanted Ed25519")
    return key
