"""A request's signature: the run's server's, over this very request, with a nonce of its own."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from graft_server.signing import Signer, open_signer
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.errors import RequestForgedError, RunError
from graft.wire.messages.request_signature import NONCE_BYTES, UsedNonces, new_nonce, verify_request

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


@pytest.mark.parametrize("length", [0, 15, 80, 111, 113, 1000])
def test_a_signature_of_another_length_is_refused(signer: Signer, length: int) -> None:
    with pytest.raises(RequestForgedError, match=f"{length} bytes, wanted 112 bytes"):
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


def test_nonces_sort_by_when_they_were_issued(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    times = [1, 255, 256, 2**40, 1_800_000_000_000_000_000]
    nonces = []
    for issued_ns in times:
        signer = Signer("run-1", key, now_ns=lambda ns=issued_ns: ns)
        signature = signer.sign_request(REQUEST)
        nonces.append(verify_request("run-1", REQUEST, signature, signer.public_key))
    assert nonces == sorted(nonces)


def test_a_nonce_is_used_once_however_many_deliver_it_at_once(tmp_path: Path) -> None:
    # With exists() and a write behind it, several of these passed.
    barrier = Barrier(8)

    def deliver(nonce: bytes) -> bool:
        barrier.wait()
        try:
            UsedNonces(tmp_path).use(nonce)
        except RequestForgedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for number in range(50):
            assert sum(pool.map(deliver, [new_nonce(number)] * 8)) == 1


def test_kept_nonces_are_bounded_and_a_removed_one_stays_refused(tmp_path: Path) -> None:
    nonces = [new_nonce(number) for number in range(30)]
    for nonce in nonces:
        UsedNonces(tmp_path, limit=10).use(nonce)
    assert len(list(tmp_path.iterdir())) == 10
    for nonce in nonces:
        with pytest.raises(RequestForgedError):
            UsedNonces(tmp_path, limit=10).use(nonce)
    assert len(list(tmp_path.iterdir())) == 10


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=60))
def test_no_order_of_deliveries_lets_a_nonce_pass_twice(deliveries: list[int]) -> None:
    nonces = [new_nonce(number) for number in range(13)]
    accepted: list[int] = []
    with TemporaryDirectory() as folder:
        for number in deliveries:
            with suppress(RequestForgedError):
                UsedNonces(Path(folder), limit=4).use(nonces[number])
                accepted.append(number)
        assert len(list(Path(folder).iterdir())) <= 4
    assert len(accepted) == len(set(accepted))


def test_requests_issued_out_of_order_are_accepted_within_the_limit(tmp_path: Path) -> None:
    for number in (5, 3, 4, 1):
        UsedNonces(tmp_path, limit=4).use(new_nonce(number))
    with pytest.raises(RequestForgedError, match="before the last 4"):
        UsedNonces(tmp_path, limit=4).use(new_nonce(0))
