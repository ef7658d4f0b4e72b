"""The server's signature of a request: a device accepts its own server's requests, each once.

A request signature is a nonce and an Ed25519 signature over run, nonce and request (ours). Only a
deployment signs requests: a simulation has no stranger on its wires.
"""

from typing import Final

from cryptography.exceptions import InvalidSignature

from graft.errors import RequestForgedError
from graft.wire.messages.card_signature import joined_fields, read_public_key

MESSAGE_SIGNATURE: Final = "seal"  # the record's key, beside the request's
NONCE_BYTES: Final = 16
_PURPOSE: Final = b"graft order 1"
_SIGNATURE_BYTES: Final = NONCE_BYTES + 64


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
