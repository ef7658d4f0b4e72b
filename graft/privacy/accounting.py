"""What releases cost: noise for a stated (epsilon, delta), and what many releases spend together.

The neighbouring relation is *replace one row*: two data sets of one size that differ in one
window or image, its label too. A bound for rows is none for a person who has many of them.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, log_ndtr, logsumexp

Floats = npt.NDArray[np.float64]
_ORDERS = np.arange(2, 129)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mechanism:
    """Gaussian noise on ``steps`` queries, each of a Poisson sample of ``sample_rate`` of the rows.

    ``noise_multiplier`` is the noise's deviation over the L2 sensitivity of a query; where rows are
    sampled (DP-SGD), over the length to which a row's gradient is clipped.
    """

    noise_multiplier: float
    sample_rate: float = 1.0
    steps: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a release spends, or all releases together: (epsilon, delta), and by which mechanisms.

    Costs are added by basic composition; ``composed_epsilon`` gives less for their mechanisms.
    """

    epsilon: float
    delta: float
    mechanisms: tuple[Mechanism, ...] = ()

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            epsilon=self.epsilon + other.epsilon,
            delta=self.delta + other.delta,
            mechanisms=self.mechanisms + other.mechanisms,
        )


NOTHING = Cost(epsilon=0.0, delta=0.0)


def gaussian_sigma(cost: Cost) -> float:
    """The least deviation of Gaussian noise that keeps ``cost`` for a query of L2 sensitivity 1.

    The analytic Gaussian mechanism (Balle and Wang, ICML 2018, Theorem 8), for any epsilon above 0,
    where the textbook's formula ends at 1.
    """
    return _least(lambda sigma: _gaussian_delta(cost.epsilon, sigma) <= cost.delta)


@cache
def training_cost(
    epsilon: float, delta: float, *, sample_rate: float, steps: int
) -> tuple[float, Cost]:
    """The least noise multiplier of DP-SGD that keeps (epsilon, delta), and what it spends.

    Parameters
    ----------
    epsilon, delta
        Of the whole training, for replaced rows.
    sample_rate
        The probability with which a row is in a batch, each row and step by itself.
    steps
        Batches of the whole training.
    """

    def mechanism(multiplier: float) -> Mechanism:
        return Mechanism(noise_multiplier=multiplier, sample_rate=sample_rate, steps=steps)

    least = _least(lambda each: composed_epsilon([mechanism(each)], delta) <= epsilon)
    return least, Cost(epsilon=epsilon, delta=delta, mechanisms=(mechanism(least),))


def composed_epsilon(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """The epsilon at ``delta`` of mechanisms together, each of which may see the others' results.

    Without sampling this is exact: Gaussians compose to one whose 1 / sigma^2 is the sum of theirs
    (Dong, Roth, Su 2022, Corollary 3.3). Else it is a bound by Renyi divergences.
    """
    all_of_them = tuple(mechanisms)
    precision = sum(m.steps / m.noise_multiplier**2 for m in all_of_them)
    if not precision:
        return 0.0
    if all(m.sample_rate >= 1 for m in all_of_them):
        sigma = precision**-0.5
        return _least(lambda epsilon: _gaussian_delta(epsilon, sigma) <= delta)
    divergence_A = np.sum([m.steps * _replaced_divergence(m) for m in all_of_them], axis=0)
    # From Renyi divergence to (epsilon, delta): Canonne, Kamath, Steinke 2020, Proposition 12.
    bounds_A = (
        divergence_A + np.log1p(-1 / _ORDERS) - (math.log(delta) + np.log(_ORDERS)) / (_ORDERS - 1)
    )
    return max(0.0, float(bounds_A.min()))


def _replaced_divergence(mechanism: Mechanism) -> Floats:
    """One step's Renyi divergence of each order, for a row that is replaced.

    Sampled, the way leads over the data without the row (weak triangle inequality, Mironov 2017,
    Proposition 11 with p = q = 2).
    """
    sigma, rate = mechanism.noise_multiplier, mechanism.sample_rate
    if rate >= 1:
        return _ORDERS / (2 * sigma**2)
    removed = _sampled_divergence(sigma, rate, 2 * int(_ORDERS[-1]))
    divergence: Floats = (_ORDERS - 0.5) / (_ORDERS - 1) * removed[2 * _ORDERS] + removed[
        2 * _ORDERS - 1
    ]
    return divergence


def _sampled_divergence(sigma: float, rate: float, highest: int) -> Floats:
    """Renyi divergence of the sampled Gaussian by order, from 2 on, for a row that is added or
    removed (Mironov, Talwar, Zhang 2019, Section 3.3)."""
    order, k = np.arange(2, highest + 1)[:, None], np.arange(highest + 1)
    rest = np.maximum(order - k, 0)
    log_choose = gammaln(order + 1) - gammaln(k + 1) - gammaln(rest + 1)
    terms = log_choose + rest * np.log1p(-rate) + k * np.log(rate) + k * (k - 1) / (2 * sigma**2)
    divergence = logsumexp(np.where(k <= order, terms, -np.inf), axis=1) / (order[:, 0] - 1)
    return np.concatenate([[0.0, 0.0], divergence])


def _gaussian_delta(epsilon: float, sigma: float) -> float:
    """The least delta at ``epsilon`` of Gaussian noise for a query of sensitivity 1."""
    near = float(log_ndtr(0.5 / sigma - epsilon * sigma))
    far = epsilon + float(log_ndtr(-0.5 / sigma - epsilon * sigma))
    return math.exp(near) - math.exp(far)


def _least(holds: Callable[[float], bool]) -> float:
    """The least number above 0 for which a condition holds that holds for all larger ones."""
    low, high = 1e-6, 1.0
    while not holds(high):
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
