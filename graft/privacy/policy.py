"""What a site releases of its rows: the policy, its budget, and where releases are recorded."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from graft.core.config import PolicyConfig
from graft.core.seeding import stream
from graft.errors import PolicyError
from graft.privacy.gaussian import Cost, gaussian_sigma

Floats = npt.NDArray[np.float64]
Noisy = Mapping[str, Floats]
Draw = Callable[[np.random.Generator], Noisy]


class Releases(Protocol):
    """Where a site records what it has released."""

    def release(self, name: str, key: str, cost: Cost, draw: Draw) -> Noisy:
        """What ``draw`` makes of a secret generator; for a ``key`` released before, the same again.

        A new release is paid for before it is returned.

        Parameters
        ----------
        name
            What is released, for errors.
        key
            The same for equal numbers that are released for an equal request.
        cost
            What a new release spends.
        draw
            Makes the noisy arrays.

        Raises
        ------
        PolicyError
            The budget does not reach; nothing is drawn then.
        """
        ...


@dataclass(frozen=True, slots=True)
class SeededReleases:
    """Releases of a simulated domain: noise from (seed, domain, round) and the release's key.

    A simulated device keeps nothing between two requests, so it is given what was ``spent`` before.
    """

    config: PolicyConfig
    keys: tuple[object, ...]
    spent: Cost

    def release(self, name: str, key: str, cost: Cost, draw: Draw) -> Noisy:
        """See ``Releases.release``."""
        require_budget(name, self.spent, cost, self.config)
        return draw(stream("policy", *self.keys, key))


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """What a site releases: its settings, and where its releases are recorded."""

    settings: PolicyConfig
    releases: Releases

    def noisy(
        self, name: str, request: tuple[object, ...], parts: Mapping[str, tuple[Floats, float]]
    ) -> Noisy:
        """The arrays of one release with noise, paid for once.

        Parameters
        ----------
        name
            What is released, for errors.
        request
            What is asked for: equal parts for an equal request are released again as they were.
        parts
            The exact arrays with each one's L2 sensitivity, of which all move together when a
            row is replaced.

        Raises
        ------
        PolicyError
            The budget does not reach.
        """
        cost = release_cost(self.settings)
        assert cost is not None
        # A row may move every part, each by its whole sensitivity.
        scale = gaussian_sigma(cost) * math.sqrt(len(parts))

        def draw(rng: np.random.Generator) -> Noisy:
            return {
                part: exact + rng.normal(0, scale * sensitivity, exact.shape)
                for part, (exact, sensitivity) in parts.items()
            }

        return self.releases.release(name, _release_key(request, parts, scale), cost, draw)


def release_cost(config: PolicyConfig) -> Cost | None:
    """What one release costs by a policy; None where it adds no noise."""
    if config.epsilon is None:
        return None
    return Cost(epsilon=config.epsilon, delta=config.delta)


def require_budget(name: str, spent: Cost, cost: Cost, config: PolicyConfig) -> None:
    """Raise PolicyError where ``cost`` on top of ``spent`` passes the policy's totals."""
    after = spent + cost
    for what, total in (("epsilon", config.total_epsilon), ("delta", config.total_delta)):
        # Rounding must not refuse ten releases of a tenth each.
        if total is not None and getattr(after, what) > total * (1 + 1e-9):
            raise PolicyError(
                f"{name}: got a privacy budget of {what} {total:g} with "
                f"{getattr(spent, what):g} of it spent, wanted {getattr(cost, what):g} more"
            )


def _release_key(
    request: tuple[object, ...], parts: Mapping[str, tuple[Floats, float]], scale: float
) -> str:
    """SHA-256 over the request, the exact numbers and the noise's size; it stays on the site."""
    digest = hashlib.sha256(repr((request, scale)).encode())
    for name in sorted(parts):
        exact, sensitivity = parts[name]
        digest.update(repr((name, sensitivity, exact.shape)).encode())
        digest.update(np.ascontiguousarray(exact, dtype="<f8").tobytes())
    return digest.hexdigest()
