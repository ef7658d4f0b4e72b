"""Gaussian noise on what a domain tells of its rows, and the budget it is drawn from.

The neighbouring relation is *replace one row*: two data sets of one size that differ in one
window or image. A bound for rows is none for a person who has many of them. Costs add up plainly
(basic composition): releases of (epsilon_i, delta_i) are (sum epsilon_i, sum delta_i) together.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from graft.core.config import PolicyConfig
from graft.core.seeding import stream
from graft.errors import PolicyError

Floats = npt.NDArray[np.float64]
Noisy = Mapping[str, Floats]
Draw = Callable[[np.random.Generator], Noisy]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a release spends, or all releases together."""

    epsilon: float
    delta: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(epsilon=self.epsilon + other.epsilon, delta=self.delta + other.delta)


class Releases(Protocol):
    """Where a site keeps what it has released."""

    def release(self, name: str, key: str, cost: Cost, draw: Draw) -> Noisy:
        """What ``draw`` makes of a secret generator; of a ``key`` released before, the same again.

        A new release is paid for before it is returned. Raises PolicyError where the budget
        does not reach, which names ``name``; nothing is drawn then.
        """
        ...


@dataclass(frozen=True, slots=True)
class SeededReleases:
    """Releases of a simulated domain: noise from (seed, domain, round) and the release's key.

    A simulated device keeps nothing between two requests, so what was spent before is told it.
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
    """What a site lets out: its settings, and where its releases are kept."""

    settings: PolicyConfig
    releases: Releases

    def noisy(
        self, name: str, order: tuple[object, ...], parts: Mapping[str, tuple[Floats, float]]
    ) -> Noisy:
        """The arrays of one release with noise, paid for once.

        ``parts`` are the exact arrays with each one's L2 sensitivity, of which all together
        move when a row is replaced. The release of equal parts for an equal ``order`` is given
        again as it was. Raises PolicyError.
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

        return self.releases.release(name, _release_key(order, parts, scale), cost, draw)


def release_cost(config: PolicyConfig) -> Cost | None:
    """What one release costs by a policy; None where it adds no noise."""
    if config.epsilon is None:
        return None
    return Cost(epsilon=config.epsilon, delta=config.delta)


def require_budget(name: str, spent: Cost, cost: Cost, config: PolicyConfig) -> None:
    """Raise PolicyError where ``cost`` on top of ``spent`` passes the policy's totals."""
    after = spent + cost
    for what, total in (("epsilon", config.total_epsilon), ("delta", config.total_delta)):
        # The sum of ten tenths must not be refused for its rounding.
        if total is not None and getattr(after, what) > total * (1 + 1e-9):
            raise PolicyError(
                f"{name}: got a privacy budget of {what} {total:g} with "
                f"{getattr(spent, what):g} of it spent, wanted {getattr(cost, what):g} more"
            )


def gaussian_sigma(cost: Cost) -> float:
    """The least deviation of Gaussian noise on a query of L2 sensitivity 1 that keeps ``cost``.

    The analytic Gaussian mechanism (Balle and Wang, ICML 2018, Theorem 8; published): the least
    sigma with  Phi(1/(2 sigma) - epsilon sigma) - e^epsilon Phi(-1/(2 sigma) - epsilon sigma)
    <= delta. It holds for any epsilon above 0, where the textbook's formula ends at 1.
    """

    def leaked(sigma: float) -> float:
        near = float(log_ndtr(0.5 / sigma - cost.epsilon * sigma))
        far = cost.epsilon + float(log_ndtr(-0.5 / sigma - cost.epsilon * sigma))
        return math.exp(near) - math.exp(far)

    low, high = 1e-6, 1.0
    while leaked(high) > cost.delta:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if leaked(middle) > cost.delta else (low, middle)
    return high


def _release_key(
    order: tuple[object, ...], parts: Mapping[str, tuple[Floats, float]], scale: float
) -> str:
    """SHA-256 over the order, the exact numbers and the noise's size; it stays on the site."""
    digest = hashlib.sha256(repr((order, scale)).encode())
    for name in sorted(parts):
        exact, sensitivity = parts[name]
        digest.update(repr((name, sensitivity, exact.shape)).encode())
        digest.update(np.ascontiguousarray(exact, dtype="<f8").tobytes())
    return digest.hexdigest()
