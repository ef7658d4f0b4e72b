"""The site's own policy: a file on its disk, and beside it what was released under it.

policy.toml      the keys of ``PolicyConfig``; nothing that a server asks for changes them
policy.spent/    spent.json: each release, its cost and its numbers; lock
"""

import fcntl
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from graft.core.config import PolicyConfig, config_from_dict, read_toml
from graft.core.files import replace_file
from graft.errors import PolicyError
from graft.privacy import Cost, Draw, Noisy, SitePolicy, require_budget

_VERSION = 1


def load_policy(path: Path) -> SitePolicy:
    """The policy in a TOML file, with its budget in ``<name>.spent`` beside it.

    Raises ConfigError where the file is missing, is no TOML or has unknown keys or values.
    """
    settings = config_from_dict({"policy": read_toml(path, "policy")}).policy
    return SitePolicy(settings, DiskReleases(path.with_suffix(".spent"), settings))


class DiskReleases:
    """``Releases`` of a real site, in a folder that only its owner may read.

    What is spent, and what was bought for it, is on the disk before it is returned; any number
    of processes may release at once. ``new_generator`` makes the secret noise of one release.
    """

    def __init__(
        self,
        folder: Path,
        config: PolicyConfig,
        new_generator: Callable[[], np.random.Generator] | None = None,
    ) -> None:
        self._folder = folder
        self._config = config
        # The system's own entropy: this noise cannot be drawn again.
        self._new_generator = new_generator or (lambda: np.random.default_rng(_entropy()))

    @property
    def spent(self) -> Cost:
        """What all releases have cost so far; raises PolicyError where it cannot be read."""
        return _total(self._read())

    def release(self, name: str, key: str, cost: Cost, draw: Draw) -> Noisy:
        """See ``Releases.release``."""
        with self._locked():
            made = self._read()
            if key not in made:
                require_budget(name, _total(made), cost, self._config)
                drawn = draw(self._new_generator())
                made[key] = {
                    "name": name,
                    "epsilon": cost.epsilon,
                    "delta": cost.delta,
                    "numbers": {part: array.tolist() for part, array in drawn.items()},
                }
                text = json.dumps({"version": _VERSION, "releases": made}, indent=1)
                replace_file(self._folder / "spent.json", text.encode(), mode=0o600)
            numbers: Mapping[str, Any] = made[key]["numbers"]
            return {part: np.array(each, np.float64) for part, each in numbers.items()}

    def _read(self) -> dict[str, Any]:
        path = self._folder / "spent.json"
        try:
            table = json.loads(path.read_text("utf-8"))
            if table["version"] != _VERSION:
                raise ValueError(f"version {table['version']}")
            releases: dict[str, Any] = table["releases"]
            _total(releases)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # A budget that cannot be read is spent.
            raise PolicyError(f"{path}: got {error!r}, wanted what was released") from error
        return releases

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _total(releases: Mapping[str, Any]) -> Cost:
    return sum(
        (Cost(epsilon=each["epsilon"], delta=each["delta"]) for each in releases.values()),
        Cost(epsilon=0.0, delta=0.0),
    )


def _entropy() -> int:
    return secrets.randbits(256)
