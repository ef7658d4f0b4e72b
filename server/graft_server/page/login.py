"""The operator's login: a name and a password's scrypt digest in a file, checked over HTTP Basic.

A password takes a tenth of a second to check, so what was accepted is known by a digest of this
process's own, and wrong ones are checked one at a time.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import secrets
from pathlib import Path
from typing import Final

from graft.core.files import replace_file
from graft.errors import ConfigError

FILE: Final = "operator.json"
MIN_PASSWORD: Final = 12
_COST: Final = {"n": 2**15, "r": 8, "p": 1, "maxmem": 64 * 1024 * 1024}
_WRONG_WAIT_S: Final = 1.0
_MOST_WAITING: Final = 16


def write_login(server: Path, name: str, password: str) -> None:
    """Set the operator's name and password; raises ConfigError for one that is too short."""
    if not name or ":" in name or not name.isprintable():
        raise ConfigError(f"operator: got {name!r:.60}, wanted a name without a colon")
    if len(password) < MIN_PASSWORD:
        raise ConfigError(
            f"password: got {len(password)} characters, wanted at least {MIN_PASSWORD}"
        )
    salt = secrets.token_bytes(16)
    facts = {"name": name, "salt": salt.hex(), "scrypt": _digest(password, salt).hex()}
    replace_file(server / FILE, json.dumps(facts).encode(), mode=0o600)


class Login:
    """Checks the ``Authorization`` header of each request."""

    def __init__(self, server: Path, wrong_wait_s: float = _WRONG_WAIT_S) -> None:
        try:
            facts = json.loads((server / FILE).read_text("utf-8"))
            self._name = str(facts["name"]).encode()
            self._salt, self._wanted = bytes.fromhex(facts["salt"]), bytes.fromhex(facts["scrypt"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{server / FILE}: got no login, wanted one of graft deploy operator"
            ) from error
        self._wrong_wait_s = wrong_wait_s
        self._key = secrets.token_bytes(32)
        self._accepted = b""
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0

    async def admits(self, header: str) -> bool:
        """Whether the header has the operator's name and password.

        Both are compared in constant time, and a wrong one is answered after a second.
        """
        seen = hmac.digest(self._key, header.encode(), "sha256")
        if hmac.compare_digest(seen, self._accepted):
            return True
        given = _credentials(header)
        if given is None or self._waiting >= _MOST_WAITING:
            return False
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                name, password = given
                digest = await asyncio.to_thread(_digest, password, self._salt)
                is_right = hmac.compare_digest(digest, self._wanted)
                is_right &= hmac.compare_digest(name.encode(), self._name)
                if is_right:
                    self._accepted = seen
                else:
                    await asyncio.sleep(self._wrong_wait_s)
                return is_right
        finally:
            self._waiting -= 1


def _credentials(header: str) -> tuple[str, str] | None:
    """The name and password of a Basic header."""
    scheme, _, code = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(code, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    # To scrypt a password with zero bytes behind it is the same password.
    return (name, password) if colon and len(password) <= 1024 and "\0" not in password else None


def _digest(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, dklen=32, **_COST)
