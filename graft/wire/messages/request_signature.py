"""The server's signature of a request, and the device's of its answer; each holds for one exchange.

A request is signed with a nonce, the digest of the run's configuration and the snapshot of the
catalogue, so that none of the four can be exchanged for another; an answer is signed over the
digest of the whole request as it arrived (ours). Only a deployment signs: a simulation has no
untrusted network.
"""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from graft.core.files import make_folder, sync_path
from graft.errors import RequestForgedError, ResponseForgedError, RunError
from graft.wire.messages.card_signature import joined_fields, read_public_key

MESSAGE_SIGNATURE: Final = "seal"  # the record's key, beside the request's and the answer's
NONCE_BYTES: Final = 16
_PURPOSE: Final = b"graft request 3"
_ANSWER_PURPOSE: Final = b"graft answer 1"
_DIGEST_BYTES: Final = 32
_SIGNATURE_BYTES: Final = NONCE_BYTES + _DIGEST_BYTES + 64


def new_nonce(issued_ns: int) -> bytes:
    """A nonce that sorts by when it was issued: 8 bytes of Unix nanoseconds, 8 random bytes."""
    return issued_ns.to_bytes(8, "big") + secrets.token_bytes(NONCE_BYTES - 8)


def configuration_digest(expansion: str) -> bytes:
    """SHA-256 of a run's configuration, as the text that Flower brings to the devices."""
    return hashlib.sha256(expansion.encode()).digest()


def signed_request_bytes(
    run: str, nonce: bytes, configuration: bytes, snapshot: bytes, request: bytes
) -> bytes:
    """What a request's signature covers: ``configuration`` is a digest, the last two encoded."""
    return joined_fields(_PURPOSE, run.encode(), nonce, configuration, snapshot, request)


def verify_request(
    run: str,
    request: bytes,
    signature: object,
    public_key: bytes,
    *,
    expansion: str = "",
    snapshot: bytes = b"",
) -> bytes:
    """The nonce of a request that the server of ``run`` signed as it stands.

    ``public_key`` is the server's, as PEM; ``expansion`` and ``snapshot`` are what came beside the
    request. Raises RequestForgedError for a missing or wrong signature or another configuration,
    RunError where ``public_key`` is none.
    """
    if not isinstance(signature, bytes) or len(signature) != _SIGNATURE_BYTES:
        got = f"{len(signature)} bytes" if isinstance(signature, bytes) else repr(signature)[:40]
        raise RequestForgedError(f"request signature: got {got}, wanted {_SIGNATURE_BYTES} bytes")
    nonce, signed_digest = signature[:NONCE_BYTES], signature[NONCE_BYTES:-64]
    covered = signed_request_bytes(run, nonce, signed_digest, snapshot, request)
    try:
        read_public_key(public_key).verify(signature[-64:], covered)
    except InvalidSignature as error:
        raise RequestForgedError(
            "request signature: got another's, wanted the run's server's"
        ) from error
    if (got_digest := configuration_digest(expansion)) != signed_digest:
        raise RequestForgedError(
            f"configuration: got one of SHA-256 {got_digest.hex()[:16]}, "
            f"wanted the signed {signed_digest.hex()[:16]}"
        )
    return nonce


def order_digest(request: bytes, signature: bytes) -> bytes:
    """The digest of a request as it travels, nonce included, which its answer is signed over."""
    return hashlib.sha256(joined_fields(request, signature)).digest()


def sign_answer(
    run: str, domain_id: str, order: bytes, response: bytes, transfers: bytes, node_key: bytes
) -> bytes:
    """The device's signature of its answer to the order with this digest.

    ``node_key`` is the private key of Flower's node authentication, in OpenSSH's format.
    """
    key = load_ssh_private_key(node_key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # the device's own folder
    covered = _answer_bytes(run, domain_id, order, response, transfers)
    return key.sign(covered, ec.ECDSA(hashes.SHA256()))


def verify_answer(
    run: str,
    domain_id: str,
    order: bytes,
    *,
    response: bytes,
    transfers: bytes,
    signature: bytes,
    node_key: bytes,
) -> None:
    """Refuse an answer that the device of ``domain_id`` did not give to this very order.

    ``node_key`` is the device's public key as enrolled, in OpenSSH's format. Raises
    ResponseForgedError, RunError where ``node_key`` is none.
    """
    wanted = f"wanted its node key's over this order ({_ANSWER_PURPOSE.decode()})"
    if not signature:
        raise ResponseForgedError(
            f"answer of {domain_id}: got no signature, as graft before 0.3 sends, {wanted}; "
            "update graft on the device"
        )
    try:
        key = load_ssh_public_key(node_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RunError(f"node key of {domain_id}: got {error}, wanted OpenSSH's format") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise RunError(f"node key of {domain_id}: got {type(key).__name__}, wanted ECDSA")
    covered = _answer_bytes(run, domain_id, order, response, transfers)
    try:
        key.verify(signature, covered, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise ResponseForgedError(
            f"answer of {domain_id}: got a signature over something else, {wanted}"
        ) from error


def _answer_bytes(
    run: str, domain_id: str, order: bytes, response: bytes, transfers: bytes
) -> bytes:
    return joined_fields(
        _ANSWER_PURPOSE, run.encode(), domain_id.encode(), order, response, transfers
    )


class UsedNonces:
    """The nonces of the requests that a device accepted, in a folder with an empty file each.

    Only those of the ``limit`` newest requests are kept, by the server's time of issue in the
    signed nonce. While as many are kept, any older request is refused: so a nonce that was removed
    is never accepted again, and no clock of the device is asked.
    """

    def __init__(self, folder: Path, limit: int = 1024) -> None:
        self._folder = folder
        self._limit = limit

    def use(self, nonce: bytes) -> None:
        """Note a nonce, on the disk; raises RequestForgedError for a used or too old one."""
        make_folder(self._folder, private=True)
        try:
            # Of two deliveries at once only one creates the file.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            os.close(os.open(self._folder / nonce.hex(), flags, 0o600))
        except FileExistsError as error:
            raise RequestForgedError("request: got one a second time, wanted each once") from error
        names = sorted(os.listdir(self._folder))
        # Created first and compared then: nobody can remove a nonce between the two.
        removed = names[: -self._limit]
        for name in removed:
            (self._folder / name).unlink(missing_ok=True)
        if nonce.hex() in removed:
            raise RequestForgedError(
                f"request: got one issued before the last {self._limit}, wanted a newer one"
            )
        sync_path(self._folder)
