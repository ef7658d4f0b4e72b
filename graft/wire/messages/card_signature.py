"""The server's signature of a card, and its verification (ours).

The signed bytes are written by hand: protobuf's may differ between versions, and a signature
must still verify years later.
"""

import contextlib
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from graft.core.records import DomainProfile, FloatArray, IntArray, ModelCard
from graft.errors import PayloadChangedError, RunError

_PURPOSE: Final = b"graft manifest 2"  # so that no other signature can be taken for this one
_FORMER_PURPOSE: Final = b"graft manifest 1"  # neither profile nor centroids


def manifest_bytes(
    run: str, card: ModelCard, *, profile: bool = True, centroids: bool = True, former: bool = False
) -> bytes:
    """The bytes that a signature covers: one card in one run, everything but its signatures.

    A card is sent without its profile, or without both: such a form has a signature of its own.
    ``former``: as in version 0.2, which covered neither.
    """
    forms = (
        _profile_bytes(card.profile if profile else None),
        _array_bytes(card.centroids_CF if centroids else None),
    )
    numbers = (card.round_index, card.payload_bytes, card.base_bytes, card.residual_bytes)
    fields = (
        _FORMER_PURPOSE if former else _PURPOSE,
        run.encode(),
        card.model_id.encode(),
        card.domain_id.encode(),
        card.architecture.encode(),
        *(str(number).encode() for number in numbers),
        card.class_mask_C.tobytes(),
        *(() if former else forms),
        *(parent.encode() for parent in card.parents),  # last: only their number is open
    )
    return joined_fields(*fields)


def _profile_bytes(profile: DomainProfile | None) -> bytes:
    if profile is None:
        return b""
    return joined_fields(
        profile.domain_id.encode(),
        profile.task.encode(),
        str(profile.num_samples).encode(),
        profile.statistics_D.tobytes(),
        _array_bytes(profile.class_counts_C),
        *(name.encode() for name in profile.inputs),
        *(str(size).encode() for size in profile.input_sizes),
    )


def _array_bytes(array: FloatArray | IntArray | None) -> bytes:
    return b"" if array is None else joined_fields(repr(array.shape).encode(), array.tobytes())


def joined_fields(*fields: bytes) -> bytes:
    """The fields, each with its length before it: no two lists share their bytes."""
    return b"".join(len(field).to_bytes(8, "big") + field for field in fields)


def verify_card(run: str, card: ModelCard, public_key: bytes, *, former: bool = False) -> None:
    """Refuse a card that the server of ``run`` did not sign as it stands.

    ``public_key`` is the PEM text of the run's ``keys/server.pub``. ``former``: a signature of
    version 0.2 holds, too; never for a card that was sent. Raises PayloadChangedError for a
    missing or wrong signature, RunError where ``public_key`` is none.
    """
    # Results contain these messages and a run's hash covers them, so neither the key nor the
    # folder's name may be in them.
    wanted = f"wanted the server's over model {card.model_id} in this run"
    if not card.signature:
        raise PayloadChangedError(f"card of {card.domain_id}: got no signature, {wanted}")
    key = read_public_key(public_key)
    for form in (False, True) if former else (False,):
        with contextlib.suppress(InvalidSignature):
            return key.verify(card.signature, manifest_bytes(run, card, former=form))
    raise PayloadChangedError(
        f"card of {card.domain_id}: got a signature over something else, {wanted}"
    )


def read_public_key(pem: bytes) -> Ed25519PublicKey:
    """A run's public key from PEM text; raises RunError where it is none."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RunError(f"public key: got {len(pem)} bytes, wanted Ed25519 as PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise RunError(f"public key: got {type(key).__name__}, wanted Ed25519")
    return key
