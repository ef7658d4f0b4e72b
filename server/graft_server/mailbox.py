"""Orders and answers between the ServerApp and the depot: files in the server's folder.

The ServerApp writes a domain's orders; the depot, which the device is connected to, hands them out
in their order and writes what comes back. Both are processes of their own, started again at any
time, and may be on two machines with a shared folder.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from graft.core.files import replace_file
from graft.errors import MessageError
from graft.wire.messages.checks import check_domain_id
from graft.wire.stubs import depot_pb2 as pb

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_ORDER_ID = re.compile(r"[0-9]{8}")
_LOOK_S: Final = 0.05


def open_mailbox(server: Path) -> "Mailbox":
    """The mailbox of a server's folder."""
    return Mailbox(server / "state" / "mailbox")


class Mailbox:
    """The orders and answers below one folder; a session has a domain's until the next begins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    # What the ServerApp does.

    def open(self, domain_id: str, session: str) -> None:
        """Begin a session with a domain; any earlier one is over, with its orders."""
        self.end(domain_id)
        self._write(domain_id, "session", session.encode())

    def call(self, domain_id: str) -> None:
        """Note that Flower has a message for the domain's node by now."""
        self._write(domain_id, "called", b"")

    def post(self, domain_id: str, order_id: str, parts: Mapping[str, bytes]) -> int:
        """Give a domain an order; its encoded length in bytes."""
        order = pb.Order(order_id=order_id, parts=dict(parts)).SerializeToString()
        self._write(domain_id, f"{order_id}.order", order)
        return len(order)

    def collect(self, domain_id: str) -> Iterator[tuple[str, bytes]]:
        """The answers that came since the last look, encoded, by their order's id."""
        for path in sorted(self._of(domain_id).glob("*.answer")):
            answer = path.read_bytes()
            path.with_suffix(".order").unlink(missing_ok=True)
            path.unlink()
            yield path.stem, answer

    def withdraw(self, domain_id: str, order_id: str) -> None:
        """Take an order back; an answer to it is dropped from now on."""
        (self._of(domain_id) / f"{order_id}.order").unlink(missing_ok=True)

    def end(self, domain_id: str) -> None:
        """End a domain's session."""
        shutil.rmtree(self._of(domain_id), ignore_errors=True)

    def close(self) -> None:
        """End every session."""
        shutil.rmtree(self._folder, ignore_errors=True)

    # What the depot and the gateway do.

    def called_ns(self, domain_id: str) -> int:
        """When a domain was called last; 0 where it was not since its last session."""
        try:
            return (self._of(domain_id) / "called").stat().st_mtime_ns
        except (FileNotFoundError, MessageError):
            return 0

    def deliver(self, domain_id: str, session: str, order_id: str, answer: bytes) -> None:
        """Take a device's answer to an order that its session has; any other is dropped."""
        if _ORDER_ID.fullmatch(order_id) is None:
            raise MessageError(f"answer of {domain_id}: got order {order_id!r:.40}, wanted digits")
        order = self._of(domain_id) / f"{order_id}.order"
        if self._session(domain_id) == session and order.exists():
            self._write(domain_id, f"{order_id}.answer", answer)

    def wait(
        self, domain_id: str, session: str, hold_s: float, goes_on: Callable[[], bool]
    ) -> pb.Order:
        """The next order of a session, for which it waits; an empty one where none came."""
        until_s = time.monotonic() + hold_s
        while goes_on():
            if self._session(domain_id) != session:
                return pb.Order(is_over=True)
            for path in sorted(self._of(domain_id).glob("*.order")):
                try:
                    if not path.with_suffix(".answer").exists():
                        order: pb.Order = pb.Order.FromString(path.read_bytes())
                        return order
                except (FileNotFoundError, DecodeError):  # it was answered just now
                    continue
            if time.monotonic() > until_s:
                break
            time.sleep(_LOOK_S)
        return pb.Order()

    def _of(self, domain_id: str) -> Path:
        check_domain_id(domain_id)
        return self._folder / domain_id

    def _session(self, domain_id: str) -> str:
        try:
            return (self._of(domain_id) / "session").read_text("utf-8")
        except FileNotFoundError:
            return ""

    def _write(self, domain_id: str, name: str, content: bytes) -> None:
        # Nothing here outlives a power cut: the ServerApp then begins new sessions.
        replace_file(self._of(domain_id) / name, content, mode=0o600, durable=False)


def answer_parts(answer: bytes) -> dict[str, bytes]:
    """The parts of an encoded answer; raises MessageError."""
    try:
        return dict(pb.Answer.FromString(answer).parts)
    except DecodeError as error:
        raise MessageError(f"answer: got {error}, wanted its parts") from error
