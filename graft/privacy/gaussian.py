"""The Gaussian mechanism: how much noise a release needs for its (epsilon, delta).

The neighbouring relation is *replace one row*: two data sets of one size that differ in one
window or image. A bound for rows is none for a person who has many of them. Costs add up plainly
(basic composition): releases of (epsilon_i, delta_i) are (sum epsilon_i, sum delta_i) together.
"""

import math
from dataclasses import dataclass

from scipy.special import log_ndtr


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a release spends, or all releases together."""

    epsilon: float
    delta: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(epsilon=self.epsilon + other.epsilon, delta=self.delta + other.delta)


def gaussian_sigma(cost: Cost) -> float:
    """The least deviation of Gaussian noise that keeps ``cost`` for a query of L2 sensitivity 1.

    The analytic Gaussian mechanism (Balle and Wang, ICML 2018, Theorem 8): the least sigma with
    Phi(1/(2 sigma) - epsilon sigma) - e^epsilon Phi(-1/(2 sigma) - epsilon sigma) <= delta.
    It holds for any epsilon above 0, where the textbook's formula ends at 1.
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
