"""What a device's transfers share, and when one is tried again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from graft.core.ports import Clock
from graft.errors import (
    BudgetError,
    DeviceRefusedError,
    ModelMissingError,
    QuotaExceededError,
    TransportError,
)
from graft.wire.transfer.cache import PartCache
from graft.wire.transfer.link import Link
from graft.wire.transfer.transfer_log import TransferLog

DEFAULT_ATTEMPTS: Final = 5
MAX_REQUESTED_WAITS: Final = 256  # a quota may cut one long transfer often; but never without end
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """At most ``max_attempts`` broken streams; streams that a quota ended do not count.

    ``wait_before_retry`` gets the broken attempts so far, ``wait_out`` the seconds that the depot
    requested; both may sleep.
    """

    max_attempts: int
    wait_before_retry: Callable[[int], None]
    wait_out: Callable[[float], None]

    def run(self, what: Callable[[], str], attempt_once: Callable[[], T]) -> T:
        """What ``attempt_once`` gives; TransportError after the last attempt.

        ModelMissingError and DeviceRefusedError end it at once, and so does any other error.
        """
        broken, waits = 0, 0
        while True:
            try:
                return attempt_once()
            except (ModelMissingError, DeviceRefusedError):
                raise
            except QuotaExceededError as error:
                waits += 1
                if waits > MAX_REQUESTED_WAITS:
                    raise
                self.wait_out(error.retry_after_s)
            except TransportError as error:
                broken += 1
                if broken >= self.max_attempts:
                    raise TransportError(
                        f"{what()} after {self.max_attempts} attempts; last: {error}"
                    ) from error
                self.wait_before_retry(broken)


@dataclass(kw_only=True, slots=True)
class ByteLimit:
    """How many bytes may still come down for a request; None: any number."""

    left: int | None = None

    def take(self, what: str, num_bytes: int) -> None:
        """Take so many bytes of it; raises BudgetError, and takes none, where they do not fit."""
        if self.left is None:
            return
        if num_bytes > self.left:
            raise BudgetError(f"{what}: got {num_bytes} bytes, wanted at most {self.left}")
        self.left -= num_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfers:
    """The way to the store, what is cached of it, and where attempts are logged and timed; and how
    much may come down."""

    link: Link
    cache: PartCache
    log: TransferLog
    clock: Clock
    retries: Retries
    limit: ByteLimit = field(default_factory=ByteLimit)
