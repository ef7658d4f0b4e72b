"""A request's signature: the run's server's, over this very request, with a nonce of its own."""

from pathlib import Path

import pytest
from graft_server.signing import Signer, open_signer

from graft.errors import RequestForgedError, RunError
from graft.wire.messages.request_signature import NONCE_BYTES, verify_request

REQUEST = b"an encoded order"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return open_signer(tmp_path, "run-1")


def test_a_signature_opens_to_its_nonce_and_no_two_are_alike(signer: Signer) -> None:
    signatures = [signer.sign_request(REQUEST) for _ in range(3)]
    nonces = {
        verify_request("run-1", REQUEST, signature, signer.public_key) for signature in signatures
    }
    assert nonces == {signature[:NONCE_BYTES] for signature in signatures}
    assert len(nonces) == 3


def test_every_flipped_bit_of_order_or_signature_is_refused(signer: Signer) -> None:
    signature = signer.sign_request(REQUEST)
    for place in range(8 * (len(REQUEST) + len(signature))):
        whole = bytearray(REQUEST + signature)
        whole[place // 8] ^= 1 << place % 8
        with pytest.raises(RequestForgedError):
            verify_request(
                "run-1",
                bytes(whole[: len(REQUEST)]),
                bytes(whole[len(REQUEST) :]),
                signer.public_key,
            )


@pytest.mark.parametrize("length", [0, 15, 79, 81, 1000])
def test_a_signature_of_another_length_is_refused(signer: Signer, length: int) -> None:
    with pytest.raises(RequestForgedError, match=f"{length} bytes, wanted 80 bytes"):
        verify_request("run-1", REQUEST, bytes(length), signer.public_key)


def test_another_runs_or_servers_signature_is_refused(signer: Signer, tmp_path: Path) -> None:
    stranger = open_signer(tmp_path / "elsewhere", "run-1")
    with pytest.raises(RequestForgedError, match="got another's"):
        verify_request("run-1", REQUEST, stranger.sign_request(REQUEST), signer.public_key)
    with pytest.raises(RequestForgedError, match="got another's"):
        verify_request("run-2", REQUEST, signer.sign_request(REQUEST), signer.public_key)


def test_what_is_no_public_key_is_named(signer: Signer) -> None:
    with pytest.raises(RunError, match="public key"):
        verify_request("run-1", REQUEST, signer.sign_request(REQUEST), b"not a key")
