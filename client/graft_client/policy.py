"""The site's own policy: a file on its disk, and beside it what was released under it.

policy.toml      the keys of ``PolicyConfig``; nothing that a server asks for changes them
policy.spent/    spent.json: each release, its cost and its numbers or its seed, and the keys of
                 answers that are limited in number; lock
"""

import fcntl
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from graft.core.config import PolicyConfig
from graft.core.config_files import config_from_dict, read_toml
from graft.core.files import make_folder, replace_file
from graft.errors import PolicyError
from graft.privacy import (
    NOTHING,
    Cost,
    Draw,
    Mechanism,
    Noisy,
    SitePolicy,
    gaussian_sigma,
    require_budget,
)

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
        return _total(self._read()["releases"])

    def release(self, name: str, key: str, cost: Cost, draw: Draw) -> Noisy:
        """See ``Releases.release``."""

        def numbers() -> dict[str, Any]:
            drawn = draw(self._new_generator())
            return {"numbers": {part: array.tolist() for part, array in drawn.items()}}

        made: Mapping[str, Any] = self._pay(name, key, cost, numbers)["numbers"]
        return {part: np.array(each, np.float64) for part, each in made.items()}

    def spend(self, name: str, key: str, cost: Cost) -> np.random.Generator:
        """See ``Releases.spend``."""
        made = self._pay(name, key, cost, lambda: {"seed": f"{_entropy():x}"})
        return np.random.default_rng(int(made["seed"], 16))

    def admit(self, name: str, key: str, group: str, limit: int) -> None:
        """See ``Releases.admit``."""
        with self._locked():
            table = self._read()
            given = table["answers"].setdefault(group, [])
            if key in given:
                return
            if len(given) >= limit:
                raise PolicyError(f"{name}: got {limit} others before it, wanted at most {limit}")
            given.append(key)
            self._write(table)

    def _pay(
        self, name: str, key: str, cost: Cost, make: Callable[[], dict[str, Any]]
    ) -> Mapping[str, Any]:
        """The entry of a release, which is on the disk, with its cost, when this returns."""
        with self._locked():
            table = self._read()
            made: dict[str, Any] = table["releases"]
            if key not in made:
                require_budget(name, _total(made), cost, self._config)
                made[key] = {"name": name, **asdict(cost), **make()}
                self._write(table)
            entry: Mapping[str, Any] = made[key]
            return entry

    def _read(self) -> dict[str, dict[str, Any]]:
        path = self._folder / "spent.json"
        try:
            table = json.loads(path.read_text("utf-8"))
            if table["version"] != _VERSION:
                raise ValueError(f"version {table['version']}")
            _total(table["releases"])
            return {"releases": table["releases"], "answers": dict(table.get("answers", {}))}
        except FileNotFoundError:
            return {"releases": {}, "answers": {}}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # A budget that cannot be read is spent.
            raise PolicyError(f"{path}: got {error!r}, wanted what was released") from error

    def _write(self, table: Mapping[str, Any]) -> None:
        text = json.dumps({"version": _VERSION, **table}, indent=1)
        replace_file(self._folder / "spent.json", text.encode(), mode=0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_folder(self._folder, private=True)
        with (self._folder / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _total(releases: Mapping[str, Any]) -> Cost:
    return sum(map(_cost, releases.values()), NOTHING)


def _cost(entry: Mapping[str, Any]) -> Cost:
    plain = Cost(epsilon=entry["epsilon"], delta=entry["delta"])
    # Of a release that an earlier version recorded, only (epsilon, delta) are known: it is charged
    # as the Gaussian mechanism that it was.
    listed = entry.get("mechanisms", [{"noise_multiplier": gaussian_sigma(plain)}])
    return replace(plain, mechanisms=tuple(Mechanism(**each) for each in listed))


def _entropy() -> int:
    return secrets.randbits(256)
