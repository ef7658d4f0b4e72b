"""What the server signs of a request, so that a device takes none from elsewhere, nor one twice.

A seal is a nonce that no other order has and the signature over run, nonce and order (ours).
Sealing is for the field: a simulation has no stranger on its wires.
"""

from typing import Final

from cryptography.exceptions import InvalidSignature

from graft.errors import RequestForgedError
from graft.wire.messages.card_signature import joined_fields, read_public_key

MESSAGE_SIGNATURE: Final = "seal"  # the record's key, beside the request's
NONCE_BYTES: Final = 16
_PURPOSE: Final = b"graft order 1"
_SIGNATURE_BYTES: Final = NONCE_BYTES + 64


def signed_request_bytes(run: str, nonce: bytes, order: bytes) -> bytes:
    """The bytes that a seal's signature covers; ``order`` is an encoded order."""
    return joined_fields(_PURPOSE, run.encode(), nonce, order)


def verify_request(run: str, order: bytes, seal: bytes, public_key: bytes) -> bytes:
    """The nonce of a request that the server of ``run`` sealed as it stands.

    ``public_key`` is the PEM text of the run's ``keys/server.pub``. Raises RequestForgedError for
    a missing or wrong seal, RunError where ``public_key`` is none.
    """
    if len(seal) != _SIGNATURE_BYTES:
        raise RequestForgedError(
            f"order: got a seal of {len(seal)} bytes, wanted {_SIGNATURE_BYTES}"
        )
    nonce, signature = seal[:NONCE_BYTES], seal[NONCE_BYTES:]
    try:
        read_public_key(public_key).verify(signature, signed_request_bytes(run, nonce, order))
    except InvalidSignature as error:
        raise RequestForgedError("order: got another's seal, wanted the run's server's") from error
    return nonce
