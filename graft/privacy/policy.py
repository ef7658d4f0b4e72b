"""What a site releases of its rows: the policy, its budget, and where releases are recorded."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from graft.core.config import PolicyConfig
from graft.core.seeding import stream
from graft.errors import PolicyError
from graft.privacy.accounting import Cost, Floats, Mechanism, composed_epsilon, gaussian_sigma

Noisy = Mapping[str, Floats]
Draw = Callable[[np.random.Generator], Noisy]


class Releases(Protocol):
    """Where a site records what it has released. ``key`` is the same for equal numbers that are
    released for an equal request; ``name`` is what is released, for errors."""

    def release(self, name: str, key: str, cost: Cost, draw: Draw) -> Noisy:
        """What ``draw`` makes of a secret generator; for a ``key`` released before, the same again.

        A new release is paid for before it is returned. Raises PolicyError where the budget does
        not reach; nothing is drawn then.
        """
        ...

    def spend(self, name: str, key: str, cost: Cost) -> np.random.Generator:
        """A secret generator, paid for as a release is; for a known ``key`` the same again."""
        ...

    def admit(self, name: str, key: str, group: str, limit: int) -> None:
        """Note an answer; raises PolicyError where ``limit`` others of its ``group`` have been
        given already."""
        ...


@dataclass(slots=True)
class SeededReleases:
    """Releases of a simulated domain: noise from (seed, domain, round) and the release's key.

    A simulated device keeps nothing between two requests, so it is given what was ``spent`` before,
    and counts no answers: its server is the simulator's.
    """

    config: PolicyConfig
    keys: tuple[object, ...]
    spent: Cost
    paid: set[str] = field(default_factory=set)

    def release(self, name: str, key: str, cost: Cost, draw: Draw) -> Noisy:
        """See ``Releases.release``."""
        return draw(self.spend(name, key, cost))

    def spend(self, name: str, key: str, cost: Cost) -> np.random.Generator:
        """See ``Releases.spend``."""
        if key not in self.paid:
            require_budget(name, self.spent, cost, self.config)
            self.spent += cost
            self.paid.add(key)
        return stream("policy", *self.keys, key)

    def admit(self, name: str, key: str, group: str, limit: int) -> None:
        """See ``Releases.admit``."""


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """What a site releases: its settings, and where its releases are recorded."""

    settings: PolicyConfig
    releases: Releases

    @property
    def adds_noise(self) -> bool:
        """Whether what is released has noise of a stated epsilon."""
        return self.settings.epsilon is not None

    @property
    def bounds_rows(self) -> bool:
        """Whether releases, trained models or both hide a row with a stated epsilon."""
        return self.adds_noise or self.settings.train_epsilon is not None

    def admit_probe(self, name: str, round_index: int, request: tuple[object, ...]) -> None:
        """Count an answer to a probe, where the policy adds noise; an equal request counts once.

        Raises PolicyError beyond the policy's number for the round.
        """
        if self.adds_noise:
            key = _release_key(request, {}, 0)
            limit = self.settings.probes_per_round
            self.releases.admit(name, key, f"probes of round {round_index}", limit)

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

    def spend(
        self,
        name: str,
        request: tuple[object, ...],
        data: Mapping[str, npt.NDArray[Any]],
        cost: Cost,
    ) -> np.random.Generator:
        """Pay for a mechanism that draws its own noise, as private training does.

        Parameters
        ----------
        name
            What is released, for errors.
        request
            What is asked for, with all settings that the result depends on.
        data
            All that the mechanism reads of the site's rows. A second run for an equal request and
            equal data costs nothing and has the same noise, so that it gives the same result.
        cost
            As ``training_cost`` gives it.

        Returns
        -------
        numpy.random.Generator
            The secret source of the mechanism's noise.

        Raises
        ------
        PolicyError
            The budget does not reach.
        """
        # Another version of numpy may draw otherwise, which would be a second release.
        digest = hashlib.sha256(repr((request, cost, np.__version__)).encode())
        for part in sorted(data):
            digest.update(repr((part, data[part].dtype.str, data[part].shape)).encode())
            digest.update(np.ascontiguousarray(data[part]).tobytes())
        return self.releases.spend(name, digest.hexdigest(), cost)


def release_cost(config: PolicyConfig) -> Cost | None:
    """What one release costs by a policy; None where it adds no noise."""
    if config.epsilon is None:
        return None
    plain = Cost(epsilon=config.epsilon, delta=config.delta)
    mechanism = Mechanism(noise_multiplier=gaussian_sigma(plain))
    return Cost(epsilon=plain.epsilon, delta=plain.delta, mechanisms=(mechanism,))


def require_budget(name: str, spent: Cost, cost: Cost, config: PolicyConfig) -> None:
    """Raise PolicyError where ``cost`` on top of ``spent`` passes the policy's totals."""
    if config.composition == "joint" and not cost.mechanisms:
        raise PolicyError(f"{name}: got a cost of no mechanism, wanted one for joint composition")
    before, after = _totals(spent, config), _totals(spent + cost, config)
    for what, total in (("epsilon", config.total_epsilon), ("delta", config.total_delta)):
        # Rounding must not refuse ten releases of a tenth each.
        if total is not None and after[what] > total * (1 + 1e-9):
            raise PolicyError(
                f"{name}: got a privacy budget of {what} {total:g} with "
                f"{before[what]:g} of it spent, wanted {after[what] - before[what]:g} more"
            )


def _totals(spent: Cost, config: PolicyConfig) -> dict[str, float]:
    """Epsilon and delta of all releases, by the policy's composition."""
    if config.composition == "sum":
        return {"epsilon": spent.epsilon, "delta": spent.delta}
    assert config.total_delta is not None
    return {"epsilon": composed_epsilon(spent.mechanisms, config.total_delta), "delta": 0.0}


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
