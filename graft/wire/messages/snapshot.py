"""What a device trusts beside a request: the server's signing key, and the catalogue's snapshot.

As The Update Framework has it (ours, smaller): a root key, which need never be on the server,
signs the server's key; the snapshot lists every model, and each request is signed together with
it. Both have a version that never goes down and an expiry, so that neither an older catalogue
(rollback), an old one for ever (freeze), nor models of two catalogues (mix and match) is accepted.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.message import DecodeError

from graft.core.exchange import GrowRequest, ProbeRequest, Request, TrainRequest
from graft.core.files import replace_file
from graft.core.records import ModelCard
from graft.errors import MessageError, RequestForgedError, RunError, StaleTrustError
from graft.wire.messages.card_signature import joined_fields, manifest_bytes, read_public_key
from graft.wire.messages.checks import MAX_LISTED
from graft.wire.stubs import messages_pb2 as pb

MESSAGE_KEY: Final = "key"  # the records' keys, beside the request's
MESSAGE_SNAPSHOT: Final = "snapshot"
_KEY_PURPOSE: Final = b"graft signing key 1"
_MAX_BYTES: Final = 4 * 1024 * 1024
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """The highest versions that a device accepted: of the signing key, and of the catalogue."""

    key: int = 0
    snapshot: int = 0


class TrustFile:
    """A device's note of what it accepted last; one process at a time writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Seen:
        """What was accepted last; raises RunError for a damaged file, which may hide a rollback."""
        try:
            return Seen(**json.loads(self._path.read_text("ascii")))
        except FileNotFoundError:
            return Seen()
        except (ValueError, TypeError) as error:
            raise RunError(f"{self._path}: got {error}, wanted what was accepted last") from error

    def write(self, seen: Seen) -> None:
        """Note what is accepted, durably, before anything is done for it."""
        if seen != self.read():
            text = json.dumps({"key": seen.key, "snapshot": seen.snapshot})
            replace_file(self._path, text.encode(), mode=0o600)


def sign_key(
    root: Ed25519PrivateKey, run: str, key: Ed25519PublicKey, *, version: int, expires_s: int
) -> bytes:
    """The record by which devices that know the root key accept a server's signing key."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    message: bytes = pb.SigningKey(
        version=version, expires_s=expires_s, public_key=raw
    ).SerializeToString(deterministic=True)
    return root.sign(joined_fields(_KEY_PURPOSE, run.encode(), message)) + message


def verify_key(run: str, record: object, root: bytes, *, seen: int, now_s: float) -> pb.SigningKey:
    """The signing key in a record of ``sign_key``; ``root`` is the pinned root key as PEM.

    Raises RequestForgedError where the root did not sign it, StaleTrustError for a version below
    ``seen`` or an expired one.
    """
    if not isinstance(record, bytes) or not _SIGNATURE_BYTES < len(record) <= 1024:
        raise RequestForgedError("signing key: got no record of it, wanted one signed by the root")
    signature, message = record[:_SIGNATURE_BYTES], record[_SIGNATURE_BYTES:]
    try:
        read_public_key(root).verify(signature, joined_fields(_KEY_PURPOSE, run.encode(), message))
    except InvalidSignature as error:
        raise RequestForgedError("signing key: got another's record, wanted the root's") from error
    key: pb.SigningKey = pb.SigningKey.FromString(message)
    _check_fresh("signing key", key.version, key.expires_s, seen, now_s)
    return key


def key_expires_s(record: bytes) -> int:
    """When a record of ``sign_key`` expires, in Unix seconds; its signature is not checked."""
    return int(pb.SigningKey.FromString(record[_SIGNATURE_BYTES:]).expires_s)


def key_pem(key: pb.SigningKey) -> bytes:
    """The public key of a record, as PEM."""
    public = Ed25519PublicKey.from_public_bytes(key.public_key)
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def card_digest(run: str, card: ModelCard) -> bytes:
    """What a snapshot lists of a card: the fields that every form of it has."""
    return hashlib.sha256(manifest_bytes(run, card, profile=False, centroids=False)).digest()


def encode_snapshot(run: str, cards: Iterable[ModelCard], *, version: int, expires_s: int) -> bytes:
    """The snapshot of a catalogue, architecture averages included."""
    digests = sorted(card_digest(run, card) for card in cards)
    snapshot = pb.Snapshot(version=version, expires_s=expires_s, cards=digests)
    data: bytes = snapshot.SerializeToString(deterministic=True)
    return data


def check_snapshot(run: str, data: bytes, request: Request, *, seen: int, now_s: float) -> int:
    """The version of a snapshot whose signature was verified, after a request was held to it.

    Raises StaleTrustError for a version below ``seen`` or an expired one, MessageError for other
    bytes, RequestForgedError where a card of the request is not in it.
    """
    if len(data) > _MAX_BYTES:
        raise MessageError(f"snapshot: {len(data)} bytes, limit {_MAX_BYTES}")
    try:
        snapshot = pb.Snapshot.FromString(data)
    except DecodeError as error:
        raise MessageError(f"snapshot: {error}") from error
    if len(snapshot.cards) > MAX_LISTED:
        raise MessageError(f"snapshot: got {len(snapshot.cards)} cards, limit {MAX_LISTED}")
    _check_fresh("catalogue", snapshot.version, snapshot.expires_s, seen, now_s)
    cards: tuple[ModelCard, ...] = ()
    if isinstance(request, ProbeRequest):
        cards = request.candidates
    elif isinstance(request, TrainRequest):
        cards = (*request.sources, *request.architecture_averages)
    elif isinstance(request, GrowRequest):
        cards = (request.model,)
    listed = set(snapshot.cards)
    for card in cards:
        if card_digest(run, card) not in listed:
            raise RequestForgedError(
                f"card of {card.domain_id}: got model {card.model_id[:16]}, "
                f"wanted one in version {snapshot.version} of the catalogue"
            )
    version: int = snapshot.version
    return version


def _check_fresh(what: str, version: int, expires_s: int, seen: int, now_s: float) -> None:
    if version < seen:
        raise StaleTrustError(
            f"{what}: got version {version}, wanted {seen}, seen before, or later"
        )
    if now_s > expires_s:
        raise StaleTrustError(
            f"{what}: got version {version}, expired {now_s - expires_s:.0f} s ago by this "
            "device's clock, wanted a valid one"
        )
