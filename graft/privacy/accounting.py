"""What releases cost: noise for a stated (epsilon, delta), and what many releases spend together.

The neighbouring relation is *replace one row*: two data sets of one size that differ in one
window or image, its label too. A bound for rows is none for a person who has many of them.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, logsumexp, ndtr, ndtri

Floats = npt.NDArray[np.float64]
# Points of the grid of privacy losses, and the share of delta that its ends may miss.
_POINTS = 1 << 14
_SLACK = 1e-4


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

    least = _least(lambda each: composed_epsilon([mechanism(each)], delta) <= epsilon, within=1e-6)
    return least, Cost(epsilon=epsilon, delta=delta, mechanisms=(mechanism(least),))


def composed_epsilon(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """The epsilon at ``delta`` of mechanisms together, each of which may see the others' results.

    Without sampling, Gaussians compose to one whose 1 / sigma^2 is the sum of theirs (Dong, Roth,
    Su 2022, Corollary 3.3). Else the distribution of the privacy loss is computed on a grid, from
    above. Both are tight: no smaller epsilon holds, but for rounding.
    """
    number: Counter[Mechanism] = Counter()
    for each in mechanisms:
        number[replace(each, steps=1)] += each.steps
    precision = sum(steps / m.noise_multiplier**2 for m, steps in number.items())
    if not precision:
        return 0.0
    if all(m.sample_rate >= 1 for m in number):
        sigma = precision**-0.5
        return _least(lambda epsilon: _gaussian_delta(epsilon, sigma) <= delta)
    return _composed(number, delta)


def _composed(number: Mapping[Mechanism, int], delta: float) -> float:
    """Epsilon at ``delta`` of so many steps of each mechanism: the loss's distribution after all
    of them, by Fourier transforms (Koskela, Jalko, Honkela, AISTATS 2020)."""
    slack = delta * _SLACK
    ends = [_single_end(m, slack / sum(number.values())) for m in number]
    # A coarse grid is enough to find between which ends the sum of all losses lies.
    coarse = [_losses(m, end, _POINTS // 16) for m, end in zip(number, ends, strict=True)]
    parts = list(zip(coarse, number.values(), strict=True))
    low, high = (_tail(parts, sign, slack) for sign in (-1.0, 1.0))
    width = max(2 * max(ends), high - low) / _POINTS
    size = 2 * _POINTS
    spectrum: npt.NDArray[np.complex128] = np.ones(size // 2 + 1, np.complex128)
    missing = 3 * slack  # single losses beyond their ends, and their sum beyond either end
    for (mechanism, steps), end in zip(number.items(), ends, strict=True):
        single_K, mass_K = _losses(mechanism, end, 2 * math.ceil(end / width) + 1, width)
        first = round(float(single_K[0]) / width)
        around = np.zeros(size)
        np.add.at(around, np.arange(first, first + len(mass_K)) % size, mass_K)
        spectrum *= np.fft.rfft(around) ** steps
    start = math.floor(low / width)
    mass_K = np.roll(np.fft.irfft(spectrum, size), -(start % size)).clip(0)
    loss_K: Floats = (start + np.arange(size, dtype=np.float64)) * width

    def leaked(epsilon: float) -> float:
        over_K = loss_K > epsilon
        return missing - float((mass_K[over_K] * np.expm1(epsilon - loss_K[over_K])).sum())

    if leaked(0.0) <= delta:
        return 0.0
    return _least(lambda epsilon: leaked(epsilon) <= delta, within=1e-9)


def _losses(
    mechanism: Mechanism, end: float, points: int, width: float | None = None
) -> tuple[Floats, Floats]:
    """One step's privacy losses on a grid, and the probability of each.

    Of a row whose clipped gradient is one of length 1 against one of length 1 the other way, the
    worst pair: of P = (1 - q) N(0) + q N(g) and Q = (1 - q) N(0) + q N(h), the positive part of
    P - e^epsilon Q is at most that of s N(g) - a N(0) and that of (1 - s) N(g) - b N(h) together
    for each s. Both grow with the distances, and on a line the s of a common threshold gives
    equality.

    The mass between two points goes to both so that it stays the same under P and under Q, which
    states no smaller delta at any epsilon (Doroshenko et al. 2022).
    """
    sigma, rate = mechanism.noise_multiplier, mechanism.sample_rate
    if width is None:
        width = 2 * end / (points - 1)
    loss_K: Floats = (np.arange(points, dtype=np.float64) - points // 2) * width
    if rate >= 1:  # two Gaussians, 1 apart
        at_K = np.concatenate([[-np.inf], sigma**2 * loss_K + 0.5])
        p_K, q_K = (_mass(at_K - shift, sigma) for shift in (1.0, 0.0))
    else:
        at_K = np.concatenate([[-np.inf], sigma**2 * _inverse_loss(loss_K, sigma, rate)])
        zero_K, one_K, other_K = (_mass(at_K - shift, sigma) for shift in (0.0, 1.0, -1.0))
        p_K, q_K = ((1 - rate) * zero_K + rate * each for each in (one_K, other_K))
    with np.errstate(all="ignore"):
        lower_K = (q_K[1:] * np.exp(loss_K[:-1]) - p_K[1:] * math.exp(-width)) / -math.expm1(-width)
    lower_K = np.where(lower_K > 0, lower_K, 0.0).clip(0, p_K[1:])
    mass_K = p_K.copy()
    mass_K[1:] -= lower_K
    mass_K[:-1] += lower_K
    return loss_K, mass_K


def _inverse_loss(loss_K: Floats, sigma: float, rate: float) -> Floats:
    """x / sigma^2 at which the sampled Gaussian's privacy loss is so large; it is odd in x."""
    half_K = np.abs(loss_K) / 2
    # asinh((1 - q) sinh(loss / 2) / c) with c = q exp(-1 / (2 sigma^2)), which may be tiny.
    constant = math.log1p(-rate) - math.log(rate) + 0.5 / sigma**2 - math.log(2)
    with np.errstate(divide="ignore"):
        log_K = constant + half_K + np.log(-np.expm1(-2 * half_K))
    far_K = np.where(log_K > 20, log_K + math.log(2), np.arcsinh(np.exp(log_K.clip(None, 20))))
    return np.copysign(half_K + far_K, loss_K)


def _single_end(mechanism: Mechanism, slack: float) -> float:
    """A loss that one step passes with at most the probability ``slack``."""
    sigma, rate = mechanism.noise_multiplier, mechanism.sample_rate
    x = 1 - sigma * float(ndtri(slack))
    if rate >= 1:
        return (x - 0.5) / sigma**2
    terms = [
        np.logaddexp(math.log1p(-rate), math.log(rate) + (sign * x - 0.5) / sigma**2)
        for sign in (1, -1)
    ]
    return float(terms[0] - terms[1])


def _tail(parts: Sequence[tuple[tuple[Floats, Floats], int]], sign: float, slack: float) -> float:
    """What the sum of all losses passes with at most the probability ``slack`` (Chernoff)."""
    bounds = []
    largest = max(float(loss_K[-1]) for (loss_K, _), _ in parts)
    for order in np.geomspace(1e-3, 1e4, 70) / largest:
        moments = 0.0
        for (loss_K, mass_K), steps in parts:
            held = mass_K > 0
            moments += steps * float(logsumexp(sign * order * loss_K[held] + np.log(mass_K[held])))
        bounds.append(float((moments - math.log(slack)) / order))
    return sign * min(bounds)


def _mass(at_K: Floats, sigma: float) -> Floats:
    """The mass of N(0, sigma^2) between each two neighbours, precise in both tails."""
    z_K = at_K / sigma
    low_K, high_K = z_K[:-1], z_K[1:]
    upper = low_K > 0
    mass_K: Floats = np.where(upper, ndtr(-low_K) - ndtr(-high_K), ndtr(high_K) - ndtr(low_K))
    return mass_K


def _gaussian_delta(epsilon: float, sigma: float) -> float:
    """The least delta at ``epsilon`` of Gaussian noise for a query of sensitivity 1."""
    near = float(log_ndtr(0.5 / sigma - epsilon * sigma))
    far = epsilon + float(log_ndtr(-0.5 / sigma - epsilon * sigma))
    return math.exp(near) - math.exp(far)


def _least(holds: Callable[[float], bool], within: float = 0.0) -> float:
    """The least number above 0 for which a condition holds that holds for all larger ones, or one
    that is larger by the fraction ``within`` at most."""
    low, high = 1e-6, 1.0
    while not holds(high):
        high *= 2
    while low < (middle := (low + high) / 2) < high and high > (1 + within) * low:
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
