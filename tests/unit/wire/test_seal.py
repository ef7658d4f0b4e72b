"""An order's seal: the run's server's, over this very order, with a nonce of its own."""

from pathlib import Path

import pytest
from graft_server.signing import Signer, open_signer

from graft.errors import OrderForgedError, RunError
from graft.wire.messages.request_signature import NONCE_BYTES, open_seal

ORDER = b"an encoded order"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return open_signer(tmp_path, "run-1")


def test_a_seal_opens_to_its_nonce_and_no_two_are_alike(signer: Signer) -> None:
    seals = [signer.seal(ORDER) for _ in range(3)]
    nonces = {open_seal("run-1", ORDER, seal, signer.public_key) for seal in seals}
    assert nonces == {seal[:NONCE_BYTES] for seal in seals}
    assert len(nonces) == 3


def test_every_flipped_bit_of_order_or_seal_is_refused(signer: Signer) -> None:
    seal = signer.seal(ORDER)
    for place in range(8 * (len(ORDER) + len(seal))):
        whole = bytearray(ORDER + seal)
        whole[place // 8] ^= 1 << place % 8
        with pytest.raises(OrderForgedError):
            open_seal(
                "run-1", bytes(whole[: len(ORDER)]), bytes(whole[len(ORDER) :]), signer.public_key
            )


@pytest.mark.parametrize("length", [0, 15, 79, 81, 1000])
def test_a_seal_of_another_length_is_refused(signer: Signer, length: int) -> None:
    with pytest.raises(OrderForgedError, match=f"{length} bytes, wanted 80"):
        open_seal("run-1", ORDER, bytes(length), signer.public_key)


def test_another_runs_or_servers_seal_is_refused(signer: Signer, tmp_path: Path) -> None:
    stranger = open_signer(tmp_path / "elsewhere", "run-1")
    with pytest.raises(OrderForgedError, match="another's seal"):
        open_seal("run-1", ORDER, stranger.seal(ORDER), signer.public_key)
    with pytest.raises(OrderForgedError, match="another's seal"):
        open_seal("run-2", ORDER, signer.seal(ORDER), signer.public_key)


def test_what_is_no_public_key_is_named(signer: Signer) -> None:
    with pytest.raises(RunError, match="public key"):
        open_seal("run-1", ORDER, signer.seal(ORDER), b"not a key")
