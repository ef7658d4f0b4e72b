"""What a deployment's orders travel with, and how their answers are verified.

ca/root.{key,pub}     the root key, which may be kept away from the server
runs/<run>/keys/      server.{key,pub}, and server.record: the root's signature over the key
state/snapshot.json   the catalogue's version, and the digest of what it lists
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from graft.core.deployment import read_server
from graft.core.files import replace_file
from graft.errors import ResponseForgedError, RunError
from graft.wire.messages.request_signature import MESSAGE_SIGNATURE, verify_answer
from graft.wire.messages.snapshot import (
    MESSAGE_KEY,
    MESSAGE_SNAPSHOT,
    card_digest,
    encode_snapshot,
    sign_key,
    verify_key,
)
from graft_server.flower.edge import Answer
from graft_server.run_folder import RunFolder
from graft_server.signing import open_key, open_signer, private_pem, public_pem

KEY_DAYS: Final = 825
SNAPSHOT_S: Final = 7 * 86_400.0


class OrderTrust:
    """Signs the orders of one run, and verifies the answers to them.

    ``expansion`` is the configuration that Flower brings to the devices, ``now`` Unix time.
    """

    def __init__(
        self, server: Path, folder: RunFolder, expansion: str, now: Callable[[], float] = time.time
    ) -> None:
        self._server = server
        self._folder = folder
        self._expansion = expansion
        self._now = now
        self._signer = open_signer(folder.keys, folder.run_id)
        record = folder.keys / "server.record"
        self._key = {MESSAGE_KEY: record.read_bytes()} if record.exists() else {}

    def sign(self, body: bytes) -> dict[str, bytes]:
        """What an encoded request travels with."""
        snapshot = self.snapshot()
        signature = self._signer.sign_request(body, expansion=self._expansion, snapshot=snapshot)
        return {MESSAGE_SIGNATURE: signature, MESSAGE_SNAPSHOT: snapshot, **self._key}

    def snapshot(self) -> bytes:
        """The catalogue of the finished rounds; its version goes up whenever it differs."""
        state, run = self._folder.read_state(), self._folder.run_id
        cards = (*state.catalogue, *state.architecture_averages)
        listed = b"".join(sorted(card_digest(run, card) for card in cards))
        digest = hashlib.sha256(listed).hexdigest()
        path = self._server / "state" / "snapshot.json"
        last = json.loads(path.read_text("ascii")) if path.exists() else {"version": 0}
        version = int(last["version"])
        if digest != last.get("digest"):
            version += 1
            # Before it is sent: a version that a device saw is never given to another catalogue.
            replace_file(path, json.dumps({"version": version, "digest": digest}).encode())
        expires_s = int(self._now() + SNAPSHOT_S)
        return encode_snapshot(run, cards, version=version, expires_s=expires_s)

    def verify(self, domain_id: str, order: bytes, answer: Answer) -> None:
        """Raise ResponseForgedError unless the domain's device signed the answer to this order."""
        public = self._server / "nodes" / f"{domain_id}.pub"
        if not public.exists():
            raise ResponseForgedError(f"answer of {domain_id}: got one of no enrolled device")
        verify_answer(
            self._folder.run_id,
            domain_id,
            order,
            response=answer.reply.response,
            transfers=answer.reply.transfers,
            signature=answer.signature,
            node_key=public.read_bytes(),
        )


def open_root(authority: Path) -> Ed25519PrivateKey:
    """The root key in the authority's folder, made at the first use."""
    root = open_key(authority / "root.key")
    replace_file(authority / "root.pub", public_pem(root))
    return root


def sign_server_key(keys: Path, run: str, root: Ed25519PrivateKey, *, now_s: float) -> int:
    """Have the root sign the key in a run's ``keys``; returns the record's version."""
    path, version = keys / "server.record", 1
    if path.exists():
        pem = public_pem(root)
        version += verify_key(run, path.read_bytes(), pem, seen=0, now_s=0.0).version
    key = open_key(keys / "server.key")
    expires_s = int(now_s + KEY_DAYS * 86_400)
    record = sign_key(root, run, key.public_key(), version=version, expires_s=expires_s)
    replace_file(path, record)
    replace_file(keys / "server.pub", public_pem(key))
    return version


def rotate_key(server: Path, authority: Path) -> int:
    """A new signing key for the server, signed by the root key; returns its version.

    Devices accept it with their next order, and no earlier key after it. A call that was
    interrupted is to be repeated. Raises RunError where ``authority`` has no root key.
    """
    if not (authority / "root.key").exists():
        raise RunError(f"{authority}: got no root.key, wanted the root key's folder")
    run = read_server(server).run
    keys = server / "runs" / run / "keys"
    former = open_signer(keys, run).public_key  # records of before stay verifiable
    replace_file(keys / "former" / f"{hashlib.sha256(former).hexdigest()[:16]}.pub", former)
    replace_file(keys / "server.key", private_pem(Ed25519PrivateKey.generate()), mode=0o600)
    return sign_server_key(keys, run, open_root(authority), now_s=time.time())
