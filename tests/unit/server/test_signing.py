"""A run has one key: for its owner alone, and the same after every stop."""

import os
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from graft_server.signing import open_signer

from graft.core.records import ModelCard
from graft.errors import PayloadChangedError, RunError
from graft.wire.messages.card_signature import verify_card

CARD = ModelCard(
    model_id="a" * 64,
    domain_id="ann",
    architecture="mlp",
    payload_bytes=3,
    base_bytes=1,
    residual_bytes=2,
    class_mask_C=np.array([True]),
    round_index=0,
    signature=b"forged",
)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_key_is_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        open_signer(tmp_path / "keys", "run")
    finally:
        os.umask(before)
    assert (tmp_path / "keys" / "server.key").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {"server.key", "server.pub"}


def test_what_is_signed_verifies_with_the_public_file_alone(tmp_path: Path) -> None:
    signed = open_signer(tmp_path, "run").sign(CARD)
    verify_card("run", signed, (tmp_path / "server.pub").read_bytes())
    assert len(signed.signature) == 64


def test_a_resumed_run_keeps_its_key(tmp_path: Path) -> None:
    first = open_signer(tmp_path, "run")
    key = (tmp_path / "server.key").read_bytes()
    again = open_signer(tmp_path, "run")
    assert (tmp_path / "server.key").read_bytes() == key
    assert again.public_key == first.public_key
    assert again.sign(CARD).signature == first.sign(CARD).signature


def test_a_renamed_run_signs_under_its_new_name(tmp_path: Path) -> None:
    old = open_signer(tmp_path, "old").sign(CARD)
    new = open_signer(tmp_path, "new").sign(old)
    public_key = (tmp_path / "server.pub").read_bytes()
    with pytest.raises(PayloadChangedError):
        verify_card("new", old, public_key)
    verify_card("new", new, public_key)


def test_a_start_cut_off_between_the_two_files_is_made_whole(tmp_path: Path) -> None:
    signer = open_signer(tmp_path, "run")
    (tmp_path / "server.pub").unlink()
    assert open_signer(tmp_path, "run").public_key == signer.public_key
    assert (tmp_path / "server.pub").read_bytes() == signer.public_key


def test_the_key_is_its_owners_alone_and_lies_there_whole(tmp_path: Path) -> None:
    open_signer(tmp_path, "run")
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.key", "server.pub"]


def test_two_runs_have_two_keys(tmp_path: Path) -> None:
    one, other = (open_signer(tmp_path / name, "run") for name in ("one", "other"))
    assert one.public_key != other.public_key


def test_a_file_that_is_no_key_of_ours_is_named_and_kept(tmp_path: Path) -> None:
    stranger = X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for content in (b"", b"not a key", stranger):
        (tmp_path / "server.key").write_bytes(content)
        with pytest.raises(RunError, match=r"server\.key"):
            open_signer(tmp_path, "run")
        assert (tmp_path / "server.key").read_bytes() == content
