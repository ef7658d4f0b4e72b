"""The server's signature of a request: a device accepts its own server's requests, each once.

A request signature is a nonce and an Ed25519 signature over run, nonce and request (ours). Only a
deployment signs requests: a simulation has no untrusted network.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature

from graft.errors import RequestForgedError
from graft.wire.messages.card_signature import joined_fields, read_public_key

MESSAGE_SIGNATURE: Final = "seal"  # the record's key, beside the request's
NONCE_BYTES: Final = 16
_PURPOSE: Final = b"graft request 2"
_SIGNATURE_BYTES: Final = NONCE_BYTES + 64


def new_nonce(issued_ns: int) -> bytes:
    """A nonce that sorts by when it was issued: 8 bytes of Unix nanoseconds, 8 random bytes."""
    return issued_ns.to_bytes(8, "big") + secrets.token_bytes(NONCE_BYTES - 8)


def signed_request_bytes(run: str, nonce: bytes, request: bytes) -> bytes:
    """The bytes that a request signature covers; ``request`` is an encoded request."""
    return joined_fields(_PURPOSE, run.encode(), nonce, request)


def verify_request(run: str, request: bytes, signature: object, public_key: bytes) -> bytes:
    """The nonce of a request that the server of ``run`` signed as it stands.

    ``public_key`` is the PEM text of the run's ``keys/server.pub``. Raises RequestForgedError for
    a missing or wrong signature, RunError where ``public_key`` is none.
    """
    if not isinstance(signature, bytes) or len(signature) != _SIGNATURE_BYTES:
        got = f"{len(signature)} bytes" if isinstance(signature, bytes) else repr(signature)[:40]
        raise RequestForgedError(f"request signature: got {got}, wanted {_SIGNATURE_BYTES} bytes")
    nonce, ed25519 = signature[:NONCE_BYTES], signature[NONCE_BYTES:]
    try:
        read_public_key(public_key).verify(ed25519, signed_request_bytes(run, nonce, request))
    except InvalidSignature as error:
        raise RequestForgedError(
            "request signature: got another's, wanted the run's server's"
        ) from error
    return nonce


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
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            # Of two deliveries at once only one creates the file.
            os.close(os.open(self._folder / nonce.hex(), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
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
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
