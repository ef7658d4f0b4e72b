"""HTTP servers on loopback for one user of the machine: others' connections are closed unread.

Flower's SuperLink starts runs, and its SuperNode hands out tasks, for whoever reaches their port.
Flower has neither a key nor a Unix socket for them, so the kernel is asked whose a connection is.
"""

import asyncio
import os
import socket
import sys
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn

_TABLES = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}
_ESTABLISHED = "01"  # a closed connection is listed as root's


def serve_own_user_alone(name: str) -> None:
    """From now on every uvicorn server of this process refuses other users, except root.

    ``name`` says in logs what is served. Where the system does not report whose a connection is,
    one line warns and everybody is served.
    """
    if not _TABLES[socket.AF_INET].exists():
        _say(
            f"{name}: other users of this machine can use its port, because this system does not "
            "report whose a connection is"
        )
        return
    load = uvicorn.Config.load

    def load_guarded(config: uvicorn.Config) -> None:
        load(config)
        config.http_protocol_class = _guarded(config.http_protocol_class, name)

    uvicorn.Config.load = load_guarded  # type: ignore[assignment,method-assign]


def user_of(client: tuple[Any, ...], server: tuple[Any, ...]) -> int | None:
    """The user whose process has the client's end of a TCP connection within this machine.

    ``client`` and ``server`` are the ends' addresses, (host, port, ...); None for no such end.
    """
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    ends = [_hexadecimal(client, family), _hexadecimal(server, family), _ESTABLISHED]
    for line in _TABLES[family].read_text("ascii").splitlines()[1:]:
        words = line.split()
        if words[1:4] == ends:
            return int(words[7])
    return None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # Flower silences the loggers that it does not know


def _hexadecimal(address: tuple[Any, ...], family: socket.AddressFamily) -> str:
    """An address as the kernel's tables have it: words in the machine's order of bytes."""
    packed = socket.inet_pton(family, address[0])
    words = [packed[start : start + 4] for start in range(0, len(packed), 4)]
    host = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return f"{host}:{address[1]:04X}"


def _guarded(protocol: type[asyncio.Protocol], name: str) -> type[asyncio.Protocol]:
    """The protocol, to which connections of other users are never made."""

    @cache  # one line a user: what a stranger repeats must not fill the log
    def note(user: int | None) -> None:
        _say(f"{name}: connection of user {'unknown' if user is None else user} refused")

    class Guarded(protocol):  # type: ignore[misc,valid-type]
        is_refused = False

        def connection_made(self, transport: Any) -> None:
            ends = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
            user = user_of(*ends)
            if user in (os.getuid(), 0):
                super().connection_made(transport)
                return
            self.is_refused = True
            transport.abort()
            note(user)

        def connection_lost(self, error: Exception | None) -> None:
            if not self.is_refused:
                super().connection_lost(error)

        def data_received(self, data: bytes) -> None:
            if not self.is_refused:
                super().data_received(data)

        def eof_received(self) -> None:
            if not self.is_refused:
                super().eof_received()

    return Guarded
