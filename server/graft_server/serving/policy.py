"""The serving policy: how many target domains at once, how often, and when none is begun.

``serve.toml`` in the server's folder has it; a running server reads it again before it begins
with a domain.
"""

import re
import tomllib
from datetime import datetime, time, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from graft.core.settings import Count, Names, NonNegative, build_settings, key, settings
from graft.errors import ConfigError

FILE: Final = "serve.toml"
_SPAN: Final = re.compile(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
_DAY_MIN: Final = 24 * 60


@settings("serve.")
class ServingPolicy:
    """What bounds serving by itself; ``graft deploy expand`` is bound by none of it."""

    at_once: Count = key(4, "Target domains that are served beside one another, at most")
    every_s: NonNegative = key(0.0, "Least time from the start of one to the next, in seconds")
    retry_s: NonNegative = key(
        60.0, "Wait after a failure of a domain, in seconds; it doubles with each further one"
    )
    retry_most_s: NonNegative = key(86_400.0, "The longest such wait, in seconds")
    patience_s: NonNegative = key(600.0, "Wait for a device that is lost while it is served")
    quiet: Names = key((), 'Hours in which none is begun, e.g. "22:00-06:00"')
    zone: str = key("", 'Time zone of the quiet hours, e.g. "Europe/Berlin"; the machine\'s own')
    initial: Names = key((), "Initial domains: round 0 begins once all of them are online")

    def __post_init__(self) -> None:
        for span in self.quiet:
            _minutes(span)
        self._zone()

    def is_quiet(self, now_s: float) -> bool:
        """Whether the wall clock is within quiet hours at this moment, in epoch seconds."""
        if not self.quiet:
            return False
        wall = datetime.fromtimestamp(now_s, self._zone()).time()
        return any(_within(wall, *_minutes(span)) for span in self.quiet)

    def retry_after_s(self, failures: int) -> float:
        """How long a domain waits after so many failures on end."""
        # An exponent has its limit where a float has none.
        return min(self.retry_most_s, self.retry_s * 2.0 ** min(failures - 1, 60))

    def _zone(self) -> tzinfo | None:
        if not self.zone:
            return None
        try:
            return ZoneInfo(self.zone)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"serve.zone: got {self.zone!r:.60}, wanted a time zone such as 'Europe/Berlin'"
            ) from error


def read_policy(server: Path) -> ServingPolicy:
    """The policy of a server's folder; the default one where it has no file.

    Raises ConfigError for a file that is no policy.
    """
    path = server / FILE
    try:
        return build_settings(ServingPolicy, tomllib.loads(path.read_text("utf-8")), "serve.")
    except FileNotFoundError:
        return ServingPolicy()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: got {error}, wanted TOML") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _minutes(span: str) -> tuple[int, int]:
    """The minutes of the day at which a span begins and ends."""
    found = _SPAN.fullmatch(span)
    hours = [int(part) for part in found.groups()] if found else []
    begin, end = (hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]) if hours else (0, 0)
    if not hours or max(begin, end) > _DAY_MIN or begin == end:
        raise ConfigError(f"serve.quiet: got {span!r:.60}, wanted hours such as '22:00-06:00'")
    return begin, end


def _within(wall: time, begin: int, end: int) -> bool:
    """Whether a time of day is in a span that may go over midnight; its end is not in it."""
    minute = wall.hour * 60 + wall.minute
    return begin <= minute < end if begin < end else minute >= begin or minute < end
