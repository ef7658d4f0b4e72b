"""The run's own key, and its signature under every card that is admitted and every request."""

import time
from collections.abc import Callable
from dataclasses import replace

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from graft.core.files import AnyPath, replace_file
from graft.core.records import ModelCard, SystemState
from graft.errors import RunError
from graft.wire.messages.card_signature import manifest_bytes
from graft.wire.messages.request_signature import (
    configuration_digest,
    new_nonce,
    signed_request_bytes,
)


class Signer:
    """Signs for one run. Ed25519 draws nothing: one card, run and key, one signature.

    ``now_ns``: Unix time in nanoseconds, when a request is issued.
    """

    def __init__(
        self, run: str, key: Ed25519PrivateKey, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._run = run
        self._key = key
        self._now_ns = now_ns

    @property
    def public_key(self) -> bytes:
        """What ``verify_card`` needs, as PEM."""
        return public_pem(self._key)

    def sign(self, card: ModelCard) -> ModelCard:
        """The card with this run's signatures, in place of any other: one for each form in which
        it is sent."""
        whole, probe, fusion = (
            self._key.sign(manifest_bytes(self._run, card, profile=profile, centroids=centroids))
            for profile, centroids in ((True, True), (False, True), (False, False))
        )
        return replace(card, signature=whole, probe_signature=probe, fusion_signature=fusion)

    def sign_state(self, state: SystemState) -> SystemState:
        """The state with its cards signed anew: tables have one form, and folders are renamed."""
        return replace(
            state,
            catalogue=state.catalogue.changed(self.sign),
            architecture_averages=tuple(map(self.sign, state.architecture_averages)),
        )

    def sign_bytes(self, content: bytes) -> bytes:
        """The signature of bytes that name their purpose."""
        return self._key.sign(content)

    def sign_request(self, request: bytes, *, expansion: str = "", snapshot: bytes = b"") -> bytes:
        """The signature by which a device accepts an encoded request from this server, once.

        ``expansion`` and ``snapshot``: the run's configuration and the catalogue's snapshot that
        the device must have got beside it.
        """
        nonce, digest = new_nonce(self._now_ns()), configuration_digest(expansion)
        covered = signed_request_bytes(self._run, nonce, digest, snapshot, request)
        return nonce + digest + self._key.sign(covered)


def open_signer(folder: AnyPath, run: str) -> Signer:
    """The signer of the key in ``folder``: made at the first use, the same ever after.

    ``server.key`` is for its owner alone, ``server.pub`` for everyone. Raises RunError where
    ``server.key`` is no Ed25519 key.
    """
    signer = Signer(run, open_key(folder / "server.key"))
    # Always: a kill may have come between the two files.
    replace_file(folder / "server.pub", signer.public_key)
    return signer


def open_key(path: AnyPath) -> Ed25519PrivateKey:
    """The private key in a file for its owner alone, made at the first use."""
    if not path.exists():
        replace_file(path, private_pem(Ed25519PrivateKey.generate()), mode=0o600)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RunError(f"{path}: got no private key, wanted Ed25519 as PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise RunError(f"{path}: got {type(key).__name__}, wanted Ed25519")
    return key


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """A private key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """A private key's public key as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
